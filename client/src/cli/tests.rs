//! Command lines: what is understood, and how people are told what is not.

use super::*;
use clap::{CommandFactory as _, Parser as _};

fn parse(line: &str) -> Result<Standalone, clap::Error> {
    Standalone::try_parse_from(std::iter::once("sojourn").chain(line.split_whitespace()))
}

#[test]
fn the_command_line_is_consistent() {
    Standalone::command().debug_assert();
}

#[test]
fn command_lines_that_are_understood() {
    let lines = [
        "journey lint a.yaml b.json",
        "journey test loan.test.yaml --journey loan.yaml",
        "journey publish a.yaml --actor ada",
        "journey list --json",
        "journey show loan --version 2",
        "journey graph loan --format dot",
        "journey report loan --server http://[::1]:7410",
        "journey activate loan",
        "journey deactivate loan --mode drain",
        "endpoint put scoring --url https://x.example/hook --secret-env SCORING --timeout 5s --attempts 3",
        "endpoint list",
        "endpoint delete scoring",
        "signal send web.form.sent --customer email=a@b.c --data {\"a\":1} --time 2026-01-01T00:00:00Z",
        "signal import a.csv.gz --id event_id --time time --customer application_id=application_id --type-prefix bank. --type activity --source bank --data a,b",
        "signal import a.jsonl --strict --patience 10s --no-resume",
        "execution list --journey loan --status active,held --limit 5",
        "execution show 0123-4567-1",
        "execution why --customer application_id=173688 --journey loan",
        "execution override --customer a=b --journey loan --to approved --reason checked",
        "execution retry 0123-4567-1 4 --reason mended --new-key",
        "execution retry --customer a=b --journey loan 4 --reason mended",
        "execution skip 0123-4567-1 4 --reason settled --command-id c1",
        "endpoint put slow --url http://x.example --rate 0.5 --concurrency 1 --breaker-failures 3 --breaker-pause 1m",
        "execution timeline --customer a=b",
        "execution timeline --customer a=b --journey loan",
        "execution watch --journey loan",
        "cluster status --json",
        "cluster nodes",
        "cluster shards",
        "cluster plan --drain 2 --drain 3 --remove 4 --activate 5",
        "cluster apply --drain 2 --wait --expected-layout 7 --actor ada --reason upgrade",
        "cluster drain 2 --wait",
        "cluster remove 2 --reason burnt",
        "cluster activate 2",
        "cluster watch",
        "cluster transfer 3 --to 2 --actor ada",
        "cluster pause c1 --reason night",
        "cluster resume c1",
        "cluster cancel c1",
        "cluster verify --shard 1 --shard 2",
        "simulate loan.yaml --input loan.csv.gz --map map.toml --until 2012-04-01T00:00:00Z",
        "bench signals --in-flight 1,64,256 --stream --server-pid 12",
        "bench executions --count 1000",
        "journey list --server http://127.0.0.1:7410,http://127.0.0.1:7420 --server http://127.0.0.1:7430",
        "completions bash",
    ];
    for line in lines {
        if let Err(e) = parse(line) {
            panic!("{line}: {e}");
        }
    }
}

/// The first line is what is wrong; the exit code of all is 2.
#[test]
fn command_lines_that_are_not() {
    let cases = [
        (
            "journey lint",
            "error: the following required arguments were not provided:",
        ),
        (
            "journey deactivate loan",
            "error: the following required arguments were not provided:",
        ),
        (
            "signal send a.b --customer email",
            "error: invalid value 'email' for '--customer <NAME=VALUE>': \"email\" is not NAME=VALUE, for example email=ada@example.com",
        ),
        (
            "signal send a.b --customer a=b --time yesterday",
            "error: invalid value 'yesterday' for '--time <TIME>': \"yesterday\" is no time, expected one such as 2026-11-21T10:00:00Z",
        ),
        (
            "journey list --deadline soon",
            "error: invalid value 'soon' for '--deadline <TIME>': \"soon\" is no length of time, expected one such as 500ms, 5s, 2m or 1h",
        ),
        (
            "execution show",
            "error: the following required arguments were not provided:",
        ),
        (
            "execution show --customer a=b",
            "error: the following required arguments were not provided:",
        ),
        (
            "execution hold x",
            "error: the following required arguments were not provided:",
        ),
        (
            "execution show x --customer a=b --journey j",
            "error: the argument '[ID]' cannot be used with:",
        ),
        (
            "bench signals --in-flight 0",
            "error: invalid value '0' for '--in-flight <N,…>': \"0\" is not a whole number above 0",
        ),
        (
            "cluster drain two",
            "error: invalid value 'two' for '<NODE>': invalid digit found in string",
        ),
        (
            "cluster transfer 3",
            "error: the following required arguments were not provided:",
        ),
        (
            "cluster apply --expected-layout 0",
            "error: invalid value '0' for '--expected-layout <N>': 0 is not in 1..18446744073709551615",
        ),
        ("jurney list", "error: unrecognized subcommand 'jurney'"),
    ];
    for (line, expected) in cases {
        let error = parse(line).expect_err(line);
        let text = error.to_string();
        assert_eq!(text.lines().next(), Some(expected), "{line}");
        assert_eq!(error.exit_code(), i32::from(Exit::Usage.code()), "{line}");
    }
}

fn words(line: &str) -> Vec<String> {
    std::iter::once("sojourn")
        .chain(line.split_whitespace())
        .map(str::to_owned)
        .collect()
}

async fn run_line(line: &str) -> (Exit, String, String) {
    let (mut say, said) = Say::captured();
    let exit = Standalone::run(words(line), &mut say)
        .await
        .unwrap_or_else(|e| panic!("{line}: {e}"));
    (exit, said.data(), said.talk())
}

#[tokio::test]
async fn a_server_that_is_not_there_is_exit_4_and_says_what_to_do() {
    // a port that was free a moment ago, at an address where nobody else asks for one
    let port = std::net::TcpListener::bind("127.0.1.2:0")
        .and_then(|l| l.local_addr())
        .expect("a port is free")
        .port();
    let lines = [
        format!("journey list --server http://127.0.1.2:{port}"),
        format!("signal send a.b --customer a=b --server http://127.0.1.2:{port}"),
        format!("execution list --server http://127.0.1.2:{port}"),
    ];
    for line in lines {
        let (exit, data, talk) = run_line(&line).await;
        assert_eq!(
            (exit, data.as_str()),
            (Exit::Unreachable, ""),
            "{line}: {talk}"
        );
        assert!(
            talk.contains(&format!("no server answers at http://127.0.1.2:{port}")),
            "{talk}"
        );
        assert!(talk.contains("sojourn dev"), "{talk}");
    }
}

#[tokio::test]
async fn bad_settings_are_usage_errors() {
    let lines = [
        ("journey list --server nonsense", "it has no scheme"),
        (
            "journey list --server https://x.example",
            "this build speaks no tls",
        ),
        ("journey list --deadline 61s", "at most 60 s"),
        ("journey list --deadline 0s", "more than 0"),
        (
            "signal import a.csv --customer nonsense --type a",
            "the mapping is not valid: customer \"nonsense\"",
        ),
        (
            "signal import a.csv --map missing.toml",
            "the mapping missing.toml cannot be read",
        ),
        (
            "signal import a.csv --type-const a --customer a=b --patience 2h",
            "--patience is out of range",
        ),
    ];
    for (line, expected) in lines {
        let (exit, _, talk) = run_line(line).await;
        assert_eq!(exit, Exit::Usage, "{line}: {talk}");
        assert!(talk.contains(expected), "{line}: {talk}");
    }
}

#[tokio::test]
async fn completions_know_the_commands() {
    let (exit, data, _) = run_line("completions bash").await;
    assert_eq!(exit, Exit::Done);
    assert!(
        data.contains("sojourn") && data.contains("deactivate"),
        "{data}"
    );
}
