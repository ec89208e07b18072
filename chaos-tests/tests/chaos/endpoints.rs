//! How an endpoint is spared: its rate, its circuit breaker, and the order of what waits for it.

use crate::support::{customer, execution, json, publish, send, signal};
use anyhow::{Context, Result, ensure};
use sojourn_chaos_tests::hook::{Got, Hook};
use sojourn_chaos_tests::invariants::{commit_then_act, events, timeline};
use sojourn_chaos_tests::process::{Server, Setup};
use sojourn_chaos_tests::wait::until;
use sojourn_client::wire::event::What;
use sojourn_client::wire::{Breaker, Endpoint, EndpointState};
use sojourn_client::{Client, Code};
use std::collections::BTreeSet;
use std::time::Duration;

const PING: &str = r#"
journey: ping
entry: [{ on: p.start }]
stages:
  - stage: one
    enter:
      - webhook: { to: hook, body: { who: "{{ customer.id }}" } }
    transitions: [{ to: two, on: p.up }]
  - { stage: two, end: done }
"#;

async fn begun(setup: Setup, endpoint: Endpoint) -> Result<(Server, Hook, Client)> {
    let hook = Hook::listen(b"none").await?;
    let server = Server::start(setup).await?;
    let client = server.client()?;
    let endpoint = Endpoint {
        name: "hook".into(),
        url: hook.url().into(),
        ..endpoint
    };
    client.put_endpoint(endpoint, "story").await?;
    publish(&client, PING).await?;
    Ok((server, hook, client))
}

async fn state(client: &Client) -> Result<EndpointState> {
    let answer = client.endpoint_states().await?;
    let state = answer.states.into_iter().find(|s| s.name == "hook");
    state.context("the state of the endpoint")
}

async fn arrived(hook: &Hook, many: usize) -> Result<Vec<Got>> {
    until(
        &format!("{many} arrived"),
        Duration::from_secs(60),
        async || {
            let got = hook.got();
            let whole: BTreeSet<&str> = got
                .iter()
                .filter(|g| g.answered == 200)
                .map(|g| g.key.as_str())
                .collect();
            Ok((whole.len() >= many).then(|| got.clone()))
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_the_rate_keeps_its_order_and_outlives_a_kill() -> Result<()> {
    let rate = 20.0;
    let one_at_a_time = Endpoint {
        rate,
        concurrency: 1,
        ..Endpoint::default()
    };
    let setup = Setup {
        shards: 1,
        ..Setup::default()
    };
    let (mut server, hook, client) = begun(setup, one_at_a_time).await?;
    let names: Vec<String> = (0..80).map(|n| format!("c{n}")).collect();
    for name in &names {
        send(&client, signal("p.start", &customer(name), "1")).await?;
    }
    let got = until(
        "half of them arrived",
        Duration::from_secs(30),
        async || {
            let got = hook.got();
            Ok((got.len() >= 50).then_some(got))
        },
    )
    .await?;
    let order: Vec<&str> = got.iter().filter_map(|g| g.body["who"].as_str()).collect();
    let sent: Vec<&str> = names.iter().map(String::as_str).take(order.len()).collect();
    ensure!(order == sent, "they arrived as {order:?}");
    // a second's worth at once, then the rate; what arrives first may have been under way for a while
    let slack = 0.2;
    for (n, one) in got.iter().enumerate().skip(rate as usize) {
        let seconds = (one.at - got[0].at) as f64 / 1e6;
        let least = (n as f64 + 1.0 - rate) / rate;
        ensure!(seconds + slack >= least, "{n} arrived after {seconds} s");
    }
    ensure!(state(&client).await?.waiting > 0, "the others wait");
    server.kill()?;
    server.again().await?;
    let got = arrived(&hook, names.len()).await?;
    for name in [&names[0], &names[49], &names[79]] {
        commit_then_act(&client, &customer(name), "ping", &got).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_can_be_lined_up_waits_in_order_all_the_same() -> Result<()> {
    // the first is sent, and nobody else within the hour
    let shut = Endpoint {
        rate: 0.001,
        concurrency: 1,
        ..Endpoint::default()
    };
    let setup = Setup {
        shards: 1,
        ..Setup::default()
    };
    let (_server, hook, client) = begun(setup, shut).await?;
    let names: Vec<String> = (0..1_300).map(|n| format!("c{n}")).collect();
    for name in &names {
        send(&client, signal("p.start", &customer(name), "1")).await?;
    }
    until("all others wait", Duration::from_secs(20), async || {
        let state = state(&client).await?;
        let all = names.len() as u64 - 1;
        Ok((state.done == 1 && state.running == 0 && state.waiting == all).then_some(()))
    })
    .await?;
    ensure!(hook.got().len() == 1, "{:?}", hook.got());
    let open = Endpoint {
        name: "hook".into(),
        url: hook.url().into(),
        concurrency: 1,
        ..Endpoint::default()
    };
    client.put_endpoint(open, "story").await?;
    let got = arrived(&hook, names.len()).await?;
    let order: Vec<&str> = got.iter().filter_map(|g| g.body["who"].as_str()).collect();
    let first = order.iter().zip(&names).position(|(a, b)| a != b);
    let around = first.map(|n| order.iter().skip(n.saturating_sub(3)).take(12));
    let around: Vec<_> = around.into_iter().flatten().collect();
    ensure!(first.is_none(), "out of order at {first:?}: {around:?}");
    ensure!(order.len() == names.len(), "each once: {}", order.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_breaker_lets_one_try_and_waiting_is_no_attempt() -> Result<()> {
    let fragile = Endpoint {
        attempts: 100,
        backoff_first_ms: 1,
        backoff_max_ms: 1,
        breaker_failures: 3,
        breaker_pause_ms: 400,
        ..Endpoint::default()
    };
    let (server, hook, client) = begun(Setup::default(), fragile).await?;
    hook.answer_always(503);
    let names: Vec<String> = (0..40).map(|n| format!("c{n}")).collect();
    for name in &names {
        send(&client, signal("p.start", &customer(name), "1")).await?;
    }
    let open = until("the breaker is open", Duration::from_secs(20), async || {
        let state = state(&client).await?;
        Ok((state.breaker() == Breaker::Open && state.running == 0).then_some(state))
    })
    .await?;
    ensure!(open.failures >= 3 && open.open_until.is_some(), "{open:?}");
    ensure!(open.error.contains("503"), "{open:?}");
    ensure!(open.waiting > 0, "{open:?}");
    // seen by people and by programs
    let listed = json(&server.run(["endpoint", "list", "--json"]).await?)?;
    let breaker = &listed[0]["state"]["breaker"];
    ensure!(breaker == "open" || breaker == "half_open", "{listed}");
    ensure!(listed[0]["breaker_failures"] == 3, "{listed}");
    let table = server.run(["endpoint", "list"]).await?;
    let table = String::from_utf8(table.stdout)?;
    ensure!(table.contains("open") && table.contains("503"), "{table}");
    let (_, metrics) = server.http("/metrics").await?;
    let waiting = metrics.lines().find(|l| {
        l.starts_with("sojourn_endpoint{")
            && l.contains("endpoint=\"hook\"")
            && l.contains("what=\"waiting\"")
    });
    let waiting: u64 = waiting
        .and_then(|l| l.rsplit(' ').next())
        .and_then(|n| n.parse().ok())
        .with_context(|| metrics.clone())?;
    ensure!(waiting > 0, "{metrics}");

    // one to a pause
    let before = hook.got();
    until("three trials", Duration::from_secs(20), async || {
        Ok((hook.got().len() >= before.len() + 3).then_some(()))
    })
    .await?;
    let trials: Vec<i64> = hook.got().iter().skip(before.len()).map(|g| g.at).collect();
    for pair in trials.windows(2) {
        let apart = (pair[1] - pair[0]) / 1_000;
        ensure!(apart >= 350, "two trials {apart} ms apart: {trials:?}");
    }

    hook.answer_always(200);
    let got = arrived(&hook, names.len()).await?;
    let closed = until("all are settled", Duration::from_secs(20), async || {
        let state = state(&client).await?;
        Ok((state.running == 0 && state.waiting == 0).then_some(state))
    })
    .await?;
    ensure!(closed.breaker() == Breaker::Closed, "{closed:?}");
    ensure!(closed.failures == 0 && closed.error.is_empty());
    ensure!(closed.done == names.len() as u64, "{closed:?}");
    // every attempt that is in the timelines was sent, and nothing that waited is
    let mut attempted = 0;
    for name in &names {
        let who = customer(name);
        until("it is settled", Duration::from_secs(20), async || {
            let now = execution(&client, &who, "ping").await?;
            Ok(now.owed.is_empty().then_some(()))
        })
        .await?;
        let happened = events(&timeline(&client, &who, "ping").await?);
        attempted += happened
            .iter()
            .filter(|(_, _, what)| matches!(what, What::Attempted(_)))
            .count();
    }
    let failed = got.iter().filter(|g| g.answered == 503).count();
    ensure!(attempted == failed, "{attempted} recorded, {failed} sent");
    ensure!(closed.failed == failed as u64, "{closed:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mended_endpoint_is_gone_to_at_once_by_those_who_waited() -> Result<()> {
    let fragile = Endpoint {
        attempts: 100,
        backoff_first_ms: 1,
        backoff_max_ms: 1,
        breaker_failures: 2,
        breaker_pause_ms: 3_600_000,
        ..Endpoint::default()
    };
    let (server, hook, client) = begun(Setup::default(), fragile.clone()).await?;
    hook.answer_always(500);
    for name in ["a", "b", "c"] {
        send(&client, signal("p.start", &customer(name), "1")).await?;
    }
    until("the breaker is open", Duration::from_secs(20), async || {
        Ok((state(&client).await?.breaker() == Breaker::Open).then_some(()))
    })
    .await?;
    // an hour would be too long to wait for
    let mended = Hook::listen(b"none").await?;
    let put = server
        .run([
            "endpoint",
            "put",
            "hook",
            "--url",
            mended.url(),
            "--rate",
            "100",
            "--breaker-failures",
            "2",
        ])
        .await?;
    ensure!(put.status.success(), "{put:?}");
    arrived(&mended, 3).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_rate_is_named() -> Result<()> {
    let server = Server::start(Setup::default()).await?;
    let client = server.client()?;
    for rate in [f64::NAN, f64::INFINITY, -1.0, 1e-9, 1e9] {
        let endpoint = Endpoint {
            name: "hook".into(),
            url: "http://localhost/".into(),
            rate,
            ..Endpoint::default()
        };
        match client.put_endpoint(endpoint, "story").await {
            Ok(put) => anyhow::bail!("a rate of {rate} was taken: {put:?}"),
            Err(error) => {
                ensure!(error.code() == Code::Invalid, "{error:?}");
                let field = error.violations().first().map(|v| v.field.as_str());
                ensure!(field == Some("endpoint.rate"), "{error:?}");
            }
        }
    }
    let zero = server
        .run([
            "endpoint",
            "put",
            "hook",
            "--url",
            "http://localhost/",
            "--rate",
            "0",
        ])
        .await?;
    ensure!(zero.status.code() == Some(2), "{zero:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_is_used_stays_and_none_has_a_secret_in_its_address() -> Result<()> {
    let (_server, _hook, client) = begun(Setup::default(), Endpoint::default()).await?;
    let refused = client.delete_endpoint("hook", "story").await;
    let error = refused.err().context("it was deleted")?;
    ensure!(
        error.message().contains("used by the live version of ping"),
        "{error}"
    );
    for (url, first, max, field) in [
        ("http://ann:secret@localhost/", 0, 0, "endpoint.url"),
        ("http://ann@localhost/", 0, 0, "endpoint.url"),
        ("http://localhost/", 700, 300, "endpoint.backoff_first_ms"),
        ("http://localhost/", 0, 300, "endpoint.backoff_first_ms"),
    ] {
        let endpoint = Endpoint {
            name: "other".into(),
            url: url.into(),
            backoff_first_ms: first,
            backoff_max_ms: max,
            ..Endpoint::default()
        };
        let put = client.put_endpoint(endpoint, "story").await;
        let error = put.err().with_context(|| format!("{url} was taken"))?;
        let named = error.violations().first().map(|v| v.field.clone());
        ensure!(named.as_deref() == Some(field), "{error:?}");
    }
    let bare = PING.replace(
        "      - webhook: { to: hook, body: { who: \"{{ customer.id }}\" } }\n",
        "      - log: hello\n",
    );
    publish(&client, &bare).await?;
    client.delete_endpoint("hook", "story").await?;
    Ok(())
}
