//! `signal unmatched`: what arrives and matches nothing.

use super::exit::{Exit, Trouble};
use super::table::{Align, Table};
use super::{GlobalOpts, Say, json, show};
use crate::unmatched::UnmatchedFilter;

/// `sojourn signal unmatched`.
#[derive(Debug, clap::Args)]
pub struct UnmatchedArgs {
    /// In executions of this journey
    #[arg(long, value_name = "NAME")]
    journey: Option<String>,
    /// In executions that were in this stage
    #[arg(long)]
    stage: Option<String>,
    /// Signals of this type
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// At most so many; 0: all
    #[arg(long, default_value_t = 100, value_name = "N")]
    limit: usize,
}

pub(super) async fn run(
    args: UnmatchedArgs,
    global: &GlobalOpts,
    say: &mut Say,
) -> Result<Exit, Trouble> {
    let client = global.client().await?;
    let limit = if args.limit == 0 {
        usize::MAX
    } else {
        args.limit
    };
    let filter = UnmatchedFilter {
        journey: args.journey,
        stage: args.stage,
        kind: args.kind,
        page_size: Some(u32::try_from(limit.min(1_000)).unwrap_or(1_000)),
    };
    let mut table = Table::new(&[
        ("occurred", Align::Left),
        ("type", Align::Left),
        ("customer", Align::Left),
        ("stage", Align::Left),
        ("execution", Align::Left),
        ("signal", Align::Left),
    ]);
    let mut token = String::new();
    let mut shown = 0;
    let mut more = false;
    let mut nobody = Vec::new();
    'pages: loop {
        let page = client.unmatched_page(&filter, &token).await;
        let page = page.map_err(Trouble::reading)?;
        nobody.extend(page.no_match);
        for s in page.signals {
            if shown == limit {
                more = true;
                break 'pages;
            }
            shown += 1;
            if say.json() {
                say.line(&json::unmatched(&s));
                continue;
            }
            table.row([
                show::time(Some(s.occurred)),
                s.r#type.clone(),
                show::identifier(s.customer.as_ref()),
                format!("{} / {}", s.journey, s.stage),
                s.execution.clone(),
                format!("{} {}", s.source, s.signal_id),
            ]);
        }
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
        if shown == limit {
            more = true;
            break;
        }
    }
    if say.json() {
        for sample in &nobody {
            say.line(&json::no_match(sample));
        }
    } else if table.is_empty() {
        say.talk("no unmatched signals");
    } else {
        say.data(table);
    }
    if more {
        say.talk(format!(
            "there may be more than {limit}; --limit 0 shows all"
        ));
    }
    if !nobody.is_empty() && !say.json() {
        say.talk(format!(
            "signals that concerned nobody (no_match), the newest {}:",
            nobody.len()
        ));
        for sample in &nobody {
            let Some(s) = &sample.signal else { continue };
            say.talk(format!(
                "  {}  {}  {}  {} {}",
                show::time(Some(sample.at)),
                s.r#type,
                show::identifier(s.identifiers.first()),
                s.source,
                s.id
            ));
        }
    }
    Ok(Exit::Done)
}
