//! Signals that mean harm: each gets an answer that names the field, nothing is half done, and the server stays up.

use crate::hostile_cases::{cases, honest};
use crate::support::{customer, execution, healthy, publish, send, signal};
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use prost::Message as _;
use sojourn_chaos_tests::invariants::{figures, records};
use sojourn_chaos_tests::process::{Server, Setup};
use sojourn_chaos_tests::raw;
use sojourn_client::wire::signals_client::SignalsClient;
use sojourn_client::wire::{self as v1, item_result};
use sojourn_client::{Client, Identifier};
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt as _;

const JOURNEY: &str = r#"
journey: door
entry: [{ on: h.start }]
stages:
  - stage: one
    transitions:
      - { to: two, on: h.up, keep: { x: signal.data.x } }
      - { to: two, when: h.fact.x > 1000 }
  - stage: two
    transitions: [{ to: one, on: h.back }]
"#;

/// A server with one customer in `one`, and two ways to talk to it.
pub async fn begun() -> Result<(Server, Client, Channel)> {
    let server = Server::start(Setup::default()).await?;
    let client = server.client()?;
    publish(&client, JOURNEY).await?;
    send(&client, signal("h.start", &customer("good"), "start")).await?;
    let channel = Endpoint::from_shared(server.url())?.connect().await?;
    Ok((server, client, channel))
}

/// The violation of a field that a status carries.
pub fn violation(status: &tonic::Status, field: &str) -> Result<String> {
    ensure!(
        status.code() == tonic::Code::InvalidArgument,
        "expected INVALID_ARGUMENT, got {:?}: {}",
        status.code(),
        status.message()
    );
    let found = status.get_details_bad_request();
    let found = found.with_context(|| format!("no field is named: {}", status.message()))?;
    let one = found
        .field_violations
        .iter()
        .find(|v| v.field.starts_with(field));
    let one = one.with_context(|| format!("no violation of {field}: {found:?}"))?;
    ensure!(
        !one.description.is_empty() && one.description.len() < 1_000,
        "its text is readable: {:?}",
        one.description.len()
    );
    Ok(one.description.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_wrong_field_is_named_and_nothing_has_changed() -> Result<()> {
    let (mut server, client, channel) = begun().await?;
    let before = figures(&client, "door").await?;
    let mut signals = SignalsClient::new(channel.clone());
    for (name, change, field, says) in cases() {
        let mut hostile = honest();
        change(&mut hostile);
        let request = v1::SendRequest {
            signal: Some(hostile),
            ..v1::SendRequest::default()
        };
        match signals.send(request).await {
            Ok(receipt) => bail!("{name}: it was taken: {receipt:?}"),
            Err(status) => {
                let text = violation(&status, field).with_context(|| name)?;
                ensure!(
                    text.contains(says),
                    "{name}: {text:?} does not say {says:?}"
                );
            }
        }
    }
    let nothing = signals.send(v1::SendRequest::default()).await;
    violation(&nothing.err().context("no signal")?, "signal")?;
    let elsewhere = v1::SendRequest {
        workspace: "Not a Slug".into(),
        signal: Some(honest()),
    };
    let elsewhere = signals.send(elsewhere).await;
    violation(&elsewhere.err().context("no workspace")?, "workspace")?;
    // several at once are all named
    let mut both = honest();
    both.id.clear();
    both.data = "[".into();
    let status = signals
        .send(v1::SendRequest {
            signal: Some(both),
            ..v1::SendRequest::default()
        })
        .await;
    let status = status.err().context("two wrong fields")?;
    violation(&status, "signal.id")?;
    violation(&status, "signal.data")?;

    healthy(&mut server).await?;
    ensure!(
        figures(&client, "door").await? == before,
        "something was half done"
    );
    // the id that all of them bore was never taken
    let receipt = send(&client, signal("h.up", &customer("good"), "hostile")).await?;
    ensure!(
        !receipt.duplicate && receipt.word() == "moved",
        "{receipt:?}"
    );
    ensure!(
        records(&client, &customer("good")).await?.len() == 2,
        "two records in all"
    );
    Ok(())
}

/// One field of protobuf that holds bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
    out
}

/// A signal whose identifier is no text.
fn broken_signal() -> Vec<u8> {
    let identifier = [field(1, b"id"), field(2, b"go\xffod")].concat();
    [
        field(1, b"broken"),
        field(2, b"story"),
        field(3, b"h.up"),
        field(5, &identifier),
    ]
    .concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_message_are_answered_with_their_field() -> Result<()> {
    let (mut server, client, channel) = begun().await?;
    let before = figures(&client, "door").await?;
    let send = "/sojourn.v1.Signals/Send";
    let request = Bytes::from(field(2, &broken_signal()));
    let status = raw::unary(channel.clone(), send, request).await;
    let status = status.err().context("an identifier that is no text")?;
    let text = violation(&status, "signal.identifiers.value")?;
    ensure!(text.contains("UTF-8"), "{text}");
    for (name, bytes) in [
        ("nonsense", vec![0xff; 64]),
        (
            "a length beyond the end",
            vec![0x12, 0xff, 0xff, 0x03, 0x0a],
        ),
        ("a number where a message stands", vec![0x10, 0x01]),
        ("a varint without end", vec![0x80; 32]),
        // a group in a group in a group …
        ("groups without end", vec![0x1b; 5_000]),
    ] {
        let status = raw::unary(channel.clone(), send, bytes.into()).await;
        let status = status.err().with_context(|| format!("{name} was taken"))?;
        ensure!(
            status.code() == tonic::Code::InvalidArgument && !status.message().is_empty(),
            "{name}: {status:?}"
        );
    }
    // beyond what is decoded at all: still an answer
    let huge = Bytes::from(vec![0u8; 17 << 20]);
    let status = raw::unary(channel.clone(), send, huge).await;
    let status = status.err().context("17 MiB were taken")?;
    ensure!(
        matches!(
            status.code(),
            tonic::Code::OutOfRange | tonic::Code::ResourceExhausted | tonic::Code::InvalidArgument
        ),
        "{status:?}"
    );
    healthy(&mut server).await?;
    ensure!(
        figures(&client, "door").await? == before,
        "something was half done"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_answers_bad_ones_by_their_own_ack_and_goes_on() -> Result<()> {
    let (mut server, client, channel) = begun().await?;
    let cases = cases();
    let mut messages: Vec<Bytes> = Vec::new();
    for n in 0..cases.len() as u64 {
        // a good one before each bad one, there and back
        let mut good = honest();
        good.id = format!("good{n}");
        good.r#type = if n % 2 == 0 { "h.up" } else { "h.back" }.into();
        let mut bad = honest();
        cases[n as usize].1(&mut bad);
        for (number, signal) in [(2 * n, good), (2 * n + 1, bad)] {
            let request = v1::StreamRequest {
                number,
                workspace: String::new(),
                signal: signal.encode_to_vec().into(),
            };
            messages.push(request.encode_to_vec().into());
        }
    }
    let last = messages.len() as u64;
    // and one whose bytes are no signal, its number readable
    let mut number = vec![0x08];
    prost::encoding::encode_varint(last, &mut number);
    messages.push([number, field(3, &broken_signal())].concat().into());
    let mut good = honest();
    good.id = "after all".into();
    good.r#type = "h.nothing".into();
    let after = v1::StreamRequest {
        number: last + 1,
        workspace: String::new(),
        signal: good.encode_to_vec().into(),
    };
    messages.push(after.encode_to_vec().into());
    let expected = messages.len();

    let (sender, receiver) = tokio::sync::mpsc::channel(messages.len());
    for message in messages {
        sender.send(message).await?;
    }
    let incoming = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut acks = raw::stream(channel, "/sojourn.v1.Signals/Stream", incoming).await?;
    let mut results = std::collections::BTreeMap::new();
    while results.len() < expected {
        let message = acks
            .message()
            .await
            .with_context(|| format!("after {} of {expected} acks", results.len()))?;
        let message = message.context("the stream ended")?;
        for ack in v1::StreamResponse::decode(message)?.acks {
            let result = ack.result.and_then(|r| r.result).context("a result")?;
            ensure!(
                results.insert(ack.number, result).is_none(),
                "{} twice",
                ack.number
            );
        }
    }
    drop(sender);
    for (n, (name, _, field, says)) in cases.iter().enumerate() {
        let n = n as u64;
        match &results[&(2 * n)] {
            item_result::Result::Receipt(r) => ensure!(!r.duplicate, "good{n}: {r:?}"),
            item_result::Result::Error(e) => bail!("good{n}: {e:?}"),
        }
        match &results[&(2 * n + 1)] {
            item_result::Result::Receipt(r) => bail!("{name}: it was taken: {r:?}"),
            item_result::Result::Error(e) => {
                let told = e
                    .violations
                    .iter()
                    .any(|v| v.field.starts_with(field) && v.description.contains(says));
                ensure!(
                    told && e.code == tonic::Code::InvalidArgument as i32,
                    "{name}: {e:?}"
                );
            }
        }
    }
    match &results[&last] {
        item_result::Result::Error(e) => {
            ensure!(e.code == tonic::Code::InvalidArgument as i32, "{e:?}");
        }
        item_result::Result::Receipt(r) => bail!("broken bytes were taken: {r:?}"),
    }
    let after = &results[&(last + 1)];
    ensure!(
        matches!(after, item_result::Result::Receipt(_)),
        "{after:?}"
    );
    healthy(&mut server).await?;
    let visits = cases.len() as u32 + 1;
    ensure!(execution(&client, &customer("good"), "door").await?.visit == visits);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_has_limits_and_an_answer_for_each() -> Result<()> {
    let (mut server, client, channel) = begun().await?;
    let mut signals = SignalsClient::new(channel);
    let many = |count: usize, data: usize| v1::SendBatchRequest {
        workspace: String::new(),
        signals: (0..count)
            .map(|n| v1::Signal {
                id: format!("b{n}"),
                data: format!("{{\"x\":\"{}\"}}", "y".repeat(data)).into(),
                ..honest()
            })
            .collect(),
    };
    for batch in [many(1_001, 0), many(20, 250_000)] {
        let status = signals.send_batch(batch).await.err().context("too much")?;
        let text = violation(&status, "signals")?;
        ensure!(text.contains("expected at most 1000"), "{text}");
    }
    ensure!(
        records(&client, &customer("good")).await?.len() == 1,
        "nothing of it was taken"
    );
    let mut batch = many(1_000, 0);
    for n in [0, 499, 999] {
        batch.signals[n].id.clear();
    }
    let results = signals.send_batch(batch).await?.into_inner().results;
    ensure!(results.len() == 1_000);
    for (n, result) in results.into_iter().enumerate() {
        match result.result.context("a result")? {
            item_result::Result::Receipt(r) => {
                ensure!(r.signal_id == format!("b{n}"), "{n}: {r:?}");
            }
            item_result::Result::Error(e) => {
                let wrong = [0, 499, 999].contains(&n);
                ensure!(
                    wrong && e.violations.iter().any(|v| v.field == "signal.id"),
                    "{n}: {e:?}"
                );
            }
        }
    }
    ensure!(records(&client, &customer("good")).await?.len() == 998);
    healthy(&mut server).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_person_written_in_several_ways_is_one_customer() -> Result<()> {
    let (mut server, client, _) = begun().await?;
    // composed and decomposed, blanks around, right to left, a family of joined signs
    for (n, (written, also)) in [
        ("Zo\u{eb}", "  Zoe\u{308}\u{2003}"),
        ("\u{1e69}", "s\u{307}\u{323}"),
        (
            "\u{5e9}\u{5dc}\u{5d5}\u{5dd}",
            "\u{5e9}\u{5dc}\u{5d5}\u{5dd} ",
        ),
        (
            "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
            " \u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
        ),
        ("\u{202e}evil", "\u{202e}evil"),
    ]
    .into_iter()
    .enumerate()
    {
        let (one, two) = (customer(written), customer(also));
        let first = send(&client, signal("h.start", &one, &format!("a{n}"))).await?;
        ensure!(first.word() == "started", "{written:?}: {first:?}");
        let second = send(&client, signal("h.up", &two, &format!("b{n}"))).await?;
        ensure!(
            second.word() == "moved",
            "{also:?} is another than {written:?}: {second:?}"
        );
        ensure!(
            first.customer == second.customer,
            "{first:?} and {second:?}"
        );
        server.crash().await?;
        let found = execution(&client, &two, "door").await?;
        ensure!(
            found.stage == "two",
            "after a crash {also:?} is in {}",
            found.stage
        );
    }
    let ada = Identifier::new("email", "Ada@Example.COM");
    send(&client, signal("h.start", &ada, "mail")).await?;
    let again = Identifier::new("email", "ada@example.com");
    ensure!(execution(&client, &again, "door").await?.stage == "one");
    // of other names case counts
    let upper = send(&client, signal("h.up", &customer("GOOD"), "case")).await?;
    ensure!(upper.no_match, "{upper:?}");
    healthy(&mut server).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_data_that_is_valid_is_kept_as_it_is() -> Result<()> {
    let (mut server, client, _) = begun().await?;
    let good = customer("good");
    let odd = r#"{"x":"nul \u0000, bell \u0007, \ud83d\ude00","x2":9223372036854775807,"":{"a":[null]},"d":1,"d":2}"#;
    let up = signal("h.up", &good, "odd").data_bytes(odd);
    let receipt = send(&client, up.clone()).await?;
    ensure!(receipt.word() == "moved", "{receipt:?}");
    server.crash().await?;
    let kept = execution(&client, &good, "door").await?.kept;
    let text = match kept.get("x").and_then(|v| v.kind.clone()) {
        Some(v1::value::Kind::String(text)) => text,
        other => bail!("kept as {other:?}"),
    };
    ensure!(text == "nul \u{0}, bell \u{7}, \u{1f600}", "{text:?}");
    let entries = records(&client, &good).await?;
    let sent = entries
        .iter()
        .find_map(|e| match e.cause.as_ref()?.cause.as_ref()? {
            v1::timeline_entry::cause::Cause::Signal(s) if s.id == "odd" => Some(s.data.clone()),
            _ => None,
        });
    ensure!(
        sent.as_deref() == Some(odd.as_bytes()),
        "stored as sent: {sent:?}"
    );
    let again = send(&client, up).await?;
    ensure!(again.duplicate && !again.content_differs);
    // the same id with other content is the first one, and says so
    let other = send(&client, signal("h.up", &good, "odd").data_bytes("{}")).await?;
    ensure!(other.duplicate && other.content_differs, "{other:?}");
    // a time that lies ahead is taken as now, and noted
    let ahead = jiff::Timestamp::from_microsecond(crate::support::now() + 86_400_000_000)?;
    let receipt = send(&client, signal("h.back", &good, "ahead").time(ahead)).await?;
    ensure!(
        receipt.time_ahead && receipt.occurred == receipt.at,
        "{receipt:?}"
    );
    Ok(())
}
