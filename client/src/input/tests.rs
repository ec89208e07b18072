//! Files as people have them: given bytes and a mapping, which signals and which errors come out.

use super::*;
use flate2::write::GzEncoder;
use std::io::Write as _;

fn mapping(toml: &str) -> Mapping {
    let file: MappingFile = toml::from_str(toml).expect("the mapping of a test is valid toml");
    Mapping::from_file(file).expect("the mapping of a test is valid")
}

const CSV: &str = r#"
id = "id"
time = "time"
type = "act"
type_prefix = "bank."
source = "bank"
customer = ["app=app"]
"#;

/// Every row in a line: `row/line id type customer time data`, or its error.
fn told(bytes: impl Into<Vec<u8>>, format: Format, mapping: &Mapping) -> Vec<String> {
    let mut reader = match Reader::from_bytes(bytes.into(), format, mapping) {
        Ok(reader) => reader,
        Err(e) => return vec![format!("cannot open: {e}")],
    };
    let mut lines = Vec::new();
    loop {
        let row = match reader.next_row() {
            Ok(Some(row)) => row,
            Ok(None) => return lines,
            Err(e) => {
                lines.push(format!("cannot read: {e}"));
                return lines;
            }
        };
        let at = format!("{}/{}", row.number, row.line);
        lines.push(match row.signal {
            Err(e) => format!("{at} error: {e}"),
            Ok(s) => {
                let customer: Vec<String> =
                    s.identifiers().iter().map(ToString::to_string).collect();
                let time = s.happened().map_or("-".to_owned(), |t| t.to_string());
                format!(
                    "{at} {}/{} {} {} {time} {}",
                    s.source_name(),
                    s.signal_id(),
                    s.kind(),
                    customer.join(","),
                    String::from_utf8_lossy(s.data_json())
                )
            }
        });
    }
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory can be written");
    encoder.finish().expect("memory can be written")
}

const TWO: &str = "id,time,app,act,amount\n\
                   e1,2011-10-01T00:38:44.546+02:00,173,A_SENT,20000\n\
                   e2,2011-10-01T00:38:44Z,174,A_BACK,\n";

fn two() -> Vec<String> {
    vec![
        r#"1/2 bank/e1 bank.A_SENT app=173 2011-09-30T22:38:44.546Z {"amount":"20000"}"#.to_owned(),
        "2/3 bank/e2 bank.A_BACK app=174 2011-10-01T00:38:44Z ".to_owned(),
    ]
}

#[test]
fn csv_is_read_however_it_was_saved() {
    let mapping = mapping(CSV);
    let cases: [(&str, Vec<u8>); 6] = [
        ("plain", TWO.into()),
        ("no newline at the end", TWO.trim_end().into()),
        ("carriage returns", TWO.replace('\n', "\r\n").into()),
        ("byte order mark", format!("\u{feff}{TWO}").into()),
        ("gzip", gz(TWO.as_bytes())),
        (
            "gzip of a byte order mark",
            gz(format!("\u{feff}{TWO}").as_bytes()),
        ),
    ];
    for (name, bytes) in cases {
        assert_eq!(told(bytes, Format::Csv, &mapping), two(), "{name}");
    }
}

#[test]
fn several_gzip_members_are_one_file() {
    let (head, tail) = TWO.split_at(40);
    let bytes = [gz(head.as_bytes()), gz(tail.as_bytes())].concat();
    assert_eq!(told(bytes, Format::Csv, &mapping(CSV)), two());
}

#[test]
fn quotes_newlines_and_unicode_stay_as_they_are() {
    let csv = "id,time,app,act,note\n\
               e1,2026-01-01T00:00:00Z,Ünï-1,A,\"two\nlines, \"\"quoted\"\"\"\n\
               e2,2026-01-01T00:00:00Z,日本,A,x\n";
    assert_eq!(
        told(csv, Format::Csv, &mapping(CSV)),
        [
            r#"1/2 bank/e1 bank.A app=Ünï-1 2026-01-01T00:00:00Z {"note":"two\nlines, \"quoted\""}"#,
            r#"2/4 bank/e2 bank.A app=日本 2026-01-01T00:00:00Z {"note":"x"}"#,
        ]
    );
}

#[test]
fn a_bad_row_names_its_column_and_the_next_is_read() {
    let mut csv = b"id,time,app,act\n\
        e1,yesterday,173,A\n\
        e2,2026-01-01T00:00:00,173,A\n\
        ,2026-01-01T00:00:00Z,173,A\n\
        e4,2026-01-01T00:00:00Z,,A\n\
        e5,2026-01-01T00:00:00Z\n\
        e6,2026-01-01T00:00:00Z,\xff,A\n"
        .to_vec();
    csv.extend_from_slice(b"e7,2026-01-01T00:00:00Z,173,A\n");
    let found = told(csv, Format::Csv, &mapping(CSV));
    let expected = [
        "1/2 error: column time: \"yesterday\" is no time, expected one such as",
        "2/3 error: column time: \"2026-01-01T00:00:00\" has no offset; add one",
        "3/4 error: column id: it is empty",
        "4/5 error: column app: it is empty",
        "5/6 error: the row has 2 columns, expected 4",
        "6/7 error: column app: the text is not utf-8",
        "7/8 bank/e7 bank.A app=173",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\n{expected}");
    }
}

#[test]
fn local_times_are_read_in_the_zone_of_the_mapping() {
    let mapping = mapping(&format!("{CSV}\ntime_zone = \"Europe/Amsterdam\""));
    let csv = "id,time,app,act\ne1,2026-07-01 12:00:00,1,A\ne2,2026-01-01T12:00:00,1,A\n";
    assert_eq!(
        told(csv, Format::Csv, &mapping),
        [
            "1/2 bank/e1 bank.A app=1 2026-07-01T10:00:00Z ",
            "2/3 bank/e2 bank.A app=1 2026-01-01T11:00:00Z ",
        ]
    );
}

#[test]
fn empty_files() {
    let mapping = mapping(CSV);
    let cases: [(&str, &[&str]); 3] = [
        (
            "",
            &[
                "cannot open: the file is empty, expected a header line with the names of the columns",
            ],
        ),
        (
            "\u{feff}",
            &[
                "cannot open: the file is empty, expected a header line with the names of the columns",
            ],
        ),
        ("id,time,app,act\n", &[]),
    ];
    for (text, expected) in cases {
        assert_eq!(told(text, Format::Csv, &mapping), expected, "{text:?}");
    }
    let events = Mapping::default();
    assert_eq!(told("", Format::Cloudevents, &events), Vec::<String>::new());
    assert_eq!(
        told("\n\n", Format::Cloudevents, &events),
        Vec::<String>::new()
    );
}

#[test]
fn a_truncated_gzip_file_ends_with_an_error_and_not_in_silence() {
    let mut bytes = gz(TWO.repeat(50).as_bytes());
    bytes.truncate(bytes.len() - 12);
    let found = told(bytes, Format::Csv, &mapping(CSV));
    assert!(
        found
            .last()
            .is_some_and(|l| l.starts_with("cannot read: after row")),
        "{found:?}"
    );
}

#[test]
fn columns_that_are_not_there_are_named_with_those_that_are() {
    let cases = [
        (
            "type = \"act\"\ncustomer = [\"app=application\"]",
            "--customer names the column \"application\", which is not there; the columns are id, time, app, act",
        ),
        (
            "customer = [\"app=app\"]",
            "nothing says what type the signals have",
        ),
        ("type = \"act\"", "nothing says who the customer is"),
        (
            "type = \"act\"\ncustomer = [\"app=app\"]\nid = \"Id\"",
            "--id names the column \"Id\"",
        ),
    ];
    for (toml, expected) in cases {
        let found = told("id,time,app,act\n", Format::Csv, &mapping(toml));
        assert!(found[0].contains(expected), "{found:?}\n{expected}");
    }
}

#[test]
fn a_row_without_an_id_column_gets_the_same_id_each_time() {
    let mapping = mapping("type = \"act\"\ncustomer = [\"app=app\"]");
    let csv = "app,act\n1,A\n1,A\n";
    let first = told(csv, Format::Csv, &mapping);
    assert_eq!(first, told(csv, Format::Csv, &mapping));
    assert_ne!(first[0].split(' ').nth(1), first[1].split(' ').nth(1));
}

#[test]
fn chosen_columns_become_data_attributes_and_json() {
    let mapping = mapping(
        "type_const = \"t\"\ncustomer = [\"id=id\", \"email=mail\"]\ndata = [\"a\"]\ndata_json = [\"j\"]\nattributes = [\"mail\"]",
    );
    let csv = "id,mail,a,b,j\n1,x@y.z,5,6,\"{\"\"n\"\": [1]}\"\n2,x@y.z,5,6,{oops\n";
    let mut reader =
        Reader::from_bytes(csv.into(), Format::Csv, &mapping).expect("the file has its columns");
    let row = reader
        .next_row()
        .expect("memory can be read")
        .expect("there is a row");
    let signal = row.signal.expect("the row is good");
    assert_eq!(signal.data_json(), br#"{"a":"5","j":{"n":[1]}}"#);
    assert_eq!(signal.attributes_json(), br#"{"mail":"x@y.z"}"#);
    assert_eq!(signal.identifiers().len(), 2);
    let row = reader
        .next_row()
        .expect("memory can be read")
        .expect("there is a row");
    let error = row.signal.expect_err("the row is bad");
    assert_eq!(error.column, "j");
    assert!(
        error.message.starts_with("\"{oops\" is not json"),
        "{error}"
    );
}

#[test]
fn cloudevents_are_read_line_by_line() {
    let lines = [
        r#"{"specversion":"1.0","id":"1","source":"web","type":"form.sent","time":"2026-01-01T00:00:00Z","subject":"ada","data":{"a":1}}"#,
        "",
        r#"{"specversion":"0.3","id":"2","source":"web","type":"t","subject":"ada"}"#,
        r#"{"specversion":"1.0","id":"3","source":"web","subject":"ada"}"#,
        r#"{"specversion":"1.0","id":"4","source":"web","type":"t"}"#,
        r#"{"specversion":"1.0","id":"5","source":"web","type":"t","subject":"ada","data":[1]}"#,
        r#"{"specversion":"1.0","id":"6","source":"web","type":"t","subject":"ada","data_base64":"AA=="}"#,
        r#"{"specversion":"1.0","id":"7","source":"web","type":"t","subject":"ada","datacontenttype":"text/xml","data":"x"}"#,
        "[1]",
        "{",
        r#"{"specversion":"1.0","id":"8","source":"web","type":"t","subject":"ada"}"#,
    ];
    let expected = [
        r#"1/1 web/1 form.sent subject=ada 2026-01-01T00:00:00Z {"a":1}"#,
        "2/3 error: column specversion: \"0.3\" is not known, expected \"1.0\"",
        "3/4 error: column type: it is missing",
        "4/5 error: column subject: it is missing",
        "5/6 error: column data: it is a list, expected an object",
        "6/7 error: column data_base64: binary data is not taken, expected a json object in data",
        "7/8 error: column datacontenttype: \"text/xml\" is not taken, expected application/json",
        "8/9 error: the line is a list, expected an object",
        "9/10 error: the line is not json",
        "10/11 web/8 t subject=ada - ",
    ];
    for text in [
        lines.join("\n"),
        lines.join("\r\n"),
        format!("\u{feff}{}\n", lines.join("\n")),
    ] {
        let found = told(text, Format::Cloudevents, &Mapping::default());
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}\n{expected}");
        }
    }
}

#[test]
fn a_cloudevent_names_its_customer_by_a_path() {
    let mapping = mapping(
        "customer = [\"app=data.application.id\", \"email=subject\"]\ntype_prefix = \"x.\"",
    );
    let event = |id: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"1","source":"web","type":"t","subject":"a@b.c","data":{{"application":{{"id":{id}}}}}}}"#
        )
    };
    let cases = [
        ("173", "1/1 web/1 x.t app=173,email=a@b.c"),
        ("\"k\"", "1/1 web/1 x.t app=k,email=a@b.c"),
        ("null", "1/1 error: column data.application.id: it is null"),
        ("\"\"", "1/1 error: column data.application.id: it is empty"),
    ];
    for (id, expected) in cases {
        let found = told(event(id), Format::Cloudevents, &mapping);
        assert!(found[0].starts_with(expected), "{found:?}\n{expected}");
    }
}

#[test]
fn a_flag_of_csv_is_refused_for_cloudevents() {
    let found = told("", Format::Cloudevents, &mapping("type = \"x\""));
    assert_eq!(
        found,
        ["cannot open: --type is for csv; a cloudevent carries its own"]
    );
}

#[test]
fn mappings_that_contradict_themselves_are_refused() {
    let cases = [
        (
            "type = \"a\"\ntype_const = \"b\"",
            "type and type-const exclude one another",
        ),
        (
            "type_const = \"b\"\ntype_prefix = \"x.\"",
            "type-prefix goes with type",
        ),
        (
            "time_zone = \"Mars/Olympus\"",
            "time-zone \"Mars/Olympus\" is not known",
        ),
        (
            "customer = [\"nonsense\"]",
            "customer \"nonsense\" is not NAME=COLUMN",
        ),
    ];
    for (toml, expected) in cases {
        let file: MappingFile = toml::from_str(toml).expect("valid toml");
        let error = Mapping::from_file(file).expect_err(toml);
        assert!(error.starts_with(expected), "{error}\n{expected}");
    }
    assert!(
        toml::from_str::<MappingFile>("typ = \"a\"").is_err(),
        "an unknown key is refused"
    );
}

#[test]
fn the_format_follows_the_name_unless_told() {
    let none = Mapping::default();
    let cases = [
        ("a.csv", Some(Format::Csv)),
        ("A.CSV.GZ", Some(Format::Csv)),
        ("a.jsonl", Some(Format::Cloudevents)),
        ("a.ndjson.gz", Some(Format::Cloudevents)),
        ("a.txt", None),
        ("-", None),
    ];
    for (name, format) in cases {
        assert_eq!(none.format_of(Path::new(name)).ok(), format, "{name}");
    }
}

#[test]
fn rows_are_passed_over_without_being_looked_at() {
    let csv = "id,time,app,act\ne1,bad,1,A\ne2,2026-01-01T00:00:00Z,1,A\n";
    let mut reader = Reader::from_bytes(csv.into(), Format::Csv, &mapping(CSV)).expect("it opens");
    assert_eq!(reader.skip_rows(1), Ok(1));
    let row = reader
        .next_row()
        .expect("memory can be read")
        .expect("there is a row");
    assert_eq!((row.number, row.line), (2, 3));
    assert_eq!(reader.skip_rows(5), Ok(0));
    assert_eq!(reader.bytes_read(), csv.len() as u64);
}

#[test]
fn a_local_time_that_clocks_skip_is_the_next_one_there_is() {
    let csv = |time: &str| format!("id,time,app,act\ne1,{time},1,A\n");
    let zoned = mapping(&format!("{CSV}time_zone = \"America/New_York\""));
    // Clocks go from 02:00 to 03:00 on 2027-03-14, and back from 02:00 to 01:00 on 2027-11-07.
    for (local, expected) in [
        ("2027-03-14T01:59:59", "2027-03-14T06:59:59Z"),
        ("2027-03-14T02:15:00", "2027-03-14T07:00:00Z"),
        ("2027-03-14T02:59:59", "2027-03-14T07:00:00Z"),
        ("2027-03-14T03:00:01", "2027-03-14T07:00:01Z"),
        ("2027-11-07T01:30:00", "2027-11-07T05:30:00Z"),
    ] {
        let found = told(csv(local), Format::Csv, &zoned);
        assert!(
            found[0].contains(&format!(" {expected} ")),
            "{local}: {found:?}"
        );
    }
}

#[test]
fn the_source_of_a_cloudevent_is_a_name_or_is_given_one() {
    let event = r#"{"specversion":"1.0","id":"1","source":"https://depot.example.org/parcels","type":"t","subject":"a"}"#;
    let found = told(event, Format::Cloudevents, &Mapping::default());
    assert!(
        found[0].starts_with(
            "1/1 error: column source: \"https://depot.example.org/parcels\" is no name of a source"
        ) && found[0].contains("--source NAME"),
        "{found:?}"
    );
    let found = told(event, Format::Cloudevents, &mapping("source = \"depot\""));
    assert!(found[0].starts_with("1/1 depot/1 t subject=a"), "{found:?}");
}

#[test]
fn a_mapping_that_does_not_fit_is_told_apart_from_a_file_that_cannot_be_read() {
    let open = |bytes: &[u8], format: Format, toml: &str| {
        Reader::from_bytes(bytes.to_vec(), format, &mapping(toml)).err()
    };
    let wrong = |error: Option<OpenError>| matches!(error, Some(OpenError::Mapping(_)));
    let csv = b"id,time,app,act\n";
    assert!(open(csv, Format::Csv, CSV).is_none());
    assert!(wrong(open(
        csv,
        Format::Csv,
        &CSV.replace("\"id\"", "\"ident\"")
    )));
    assert!(wrong(open(csv, Format::Csv, "customer = [\"app=app\"]")));
    assert!(wrong(open(b"{}", Format::Cloudevents, "id = \"x\"")));
    assert!(matches!(
        open(b"", Format::Csv, CSV),
        Some(OpenError::File(_))
    ));
    assert!(matches!(
        Reader::open(Path::new("nowhere.csv"), &mapping(CSV)).err(),
        Some(OpenError::File(_))
    ));
    assert!(wrong(
        Reader::open(Path::new("nowhere.txt"), &mapping(CSV)).err()
    ));
}
