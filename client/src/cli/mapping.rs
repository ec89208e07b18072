//! The flags that say how a file becomes signals: the same for `signal import` and `simulate`.

use super::exit::Trouble;
use crate::input::{Format, Mapping, MappingFile};
use std::path::PathBuf;

/// Which column becomes which part of a signal.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct MappingArgs {
    /// Read the mapping from a TOML file; flags go before it
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
    /// What the files hold [default: by their names: .csv, .jsonl, .ndjson, each also .gz]
    #[arg(long)]
    format: Option<Format>,
    /// The column of the signal's id [default: an id made of the row's number and content]
    #[arg(long, value_name = "COLUMN")]
    id: Option<String>,
    /// The column of the time [default: signals happen when they arrive]
    #[arg(long, value_name = "COLUMN")]
    time: Option<String>,
    /// The zone of times without an offset, for example Europe/Amsterdam
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// The identifier of the customer and its column (or JSON path); the first is the customer key
    #[arg(long, value_name = "NAME=COLUMN")]
    customer: Vec<String>,
    /// The source of all signals
    #[arg(long, value_name = "TEXT")]
    source: Option<String>,
    /// The column of the signal's type
    #[arg(long = "type", value_name = "COLUMN")]
    kind: Option<String>,
    /// Put before each type
    #[arg(long, value_name = "TEXT")]
    type_prefix: Option<String>,
    /// The type of all signals, instead of a column
    #[arg(long, value_name = "TYPE", conflicts_with_all = ["kind", "type_prefix"])]
    type_const: Option<String>,
    /// The columns that become data, as text [default: all that are not mapped otherwise]
    #[arg(long, value_name = "COLUMN,…", value_delimiter = ',')]
    data: Option<Vec<String>>,
    /// The columns that become data and hold JSON
    #[arg(long, value_name = "COLUMN,…", value_delimiter = ',')]
    data_json: Vec<String>,
    /// The columns that become attributes of the customer
    #[arg(long, value_name = "COLUMN,…", value_delimiter = ',')]
    attributes: Vec<String>,
}

impl MappingArgs {
    /// The mapping of the file, with the flags over it.
    pub(super) fn mapping(&self) -> Result<Mapping, Trouble> {
        let mut file = match &self.map {
            None => MappingFile::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|e| {
                    Trouble::usage(format!(
                        "the mapping {} cannot be read: {e}",
                        path.display()
                    ))
                })?;
                toml::from_str(&text).map_err(|e| {
                    Trouble::usage(format!(
                        "the mapping {} is not valid: {}",
                        path.display(),
                        e.to_string().trim_end()
                    ))
                })?
            }
        };
        let over = |flag: &Option<String>, key: &mut Option<String>| {
            if flag.is_some() {
                key.clone_from(flag);
            }
        };
        if self.kind.is_some() {
            file.type_const = None;
        }
        if self.type_const.is_some() {
            (file.r#type, file.type_prefix) = (None, None);
        }
        if self.format.is_some() {
            file.format = self.format;
        }
        over(&self.id, &mut file.id);
        over(&self.time, &mut file.time);
        over(&self.time_zone, &mut file.time_zone);
        over(&self.source, &mut file.source);
        over(&self.kind, &mut file.r#type);
        over(&self.type_prefix, &mut file.type_prefix);
        over(&self.type_const, &mut file.type_const);
        if !self.customer.is_empty() {
            file.customer.clone_from(&self.customer);
        }
        if self.data.is_some() {
            file.data.clone_from(&self.data);
        }
        if !self.data_json.is_empty() {
            file.data_json.clone_from(&self.data_json);
        }
        if !self.attributes.is_empty() {
            file.attributes.clone_from(&self.attributes);
        }
        Mapping::from_file(file)
            .map_err(|e| Trouble::usage(format!("the mapping is not valid: {e}")))
    }
}
