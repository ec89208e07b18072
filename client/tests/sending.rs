//! Sending signals to a server that fails: nothing is lost, nothing happens twice, the order of each customer stays.

mod world;

use sojourn_client::{Client, Code, Outcome, Signal};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use world::{Fault, Server, World};

fn signal(customer: &str, id: impl Into<String>) -> Signal {
    Signal::with_id("a.b", id)
        .source("t")
        .customer("id", customer)
}

async fn client(server: &Server, deadline: Duration) -> Client {
    Client::builder(server.url())
        .deadline(deadline)
        .connect()
        .await
        .expect("the server is there")
}

/// One number after another that looks like chance and is the same in every run.
fn mixed(seed: u64, number: u64) -> u64 {
    let mut x = seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Sends `count` signals of `customers` customers, pipelined; the ids in their order for each customer.
async fn send_many(
    client: &Client,
    count: usize,
    customers: usize,
) -> HashMap<String, Vec<String>> {
    let mut sent: HashMap<String, Vec<String>> = HashMap::new();
    let mut pending = Vec::new();
    for number in 0..count {
        let customer = format!("c{}", number % customers);
        let id = format!("s{number}");
        sent.entry(customer.clone()).or_default().push(id.clone());
        pending.push(
            client
                .enqueue(signal(&customer, id))
                .await
                .expect("there is room"),
        );
    }
    for answer in pending {
        let outcome = answer.await.expect("the server is there");
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    }
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn order_and_once_only_survive_broken_streams_and_overload() {
    for seed in 1..=4 {
        let world = World::new(move |number, _| match mixed(seed, number) % 60 {
            0 => Fault::BreakBefore,
            1 => Fault::BreakAfter,
            2..=8 => Fault::Overload,
            9..=11 => Fault::Unknown,
            _ => Fault::None,
        });
        let server = Server::start(&world);
        let client = client(&server, Duration::from_secs(60)).await;
        let sent = send_many(&client, 1_500, 40).await;
        let state = world.state();
        assert_eq!(state.applied, sent, "seed {seed}");
        assert!(state.arrived > 1_500, "seed {seed}: no fault was injected");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_and_comes_back_is_waited_for() {
    let world = World::faultless();
    let server = Server::start(&world);
    let address = server.address;
    let client = client(&server, Duration::from_secs(60)).await;
    let sending = tokio::spawn({
        let client = client.clone();
        async move { send_many(&client, 20_000, 500).await }
    });
    let deadline = Instant::now() + Duration::from_secs(30);
    while world.applied() < 2_000 {
        assert!(Instant::now() < deadline, "nothing arrives");
        tokio::task::yield_now().await;
    }
    drop(server);
    let _again = Server::at(&world, address);
    let sent = sending.await.expect("it ends");
    assert_eq!(world.state().applied, sent);
}

#[tokio::test]
async fn no_answer_is_unknown_and_the_same_id_again_gets_the_first_answer() {
    let world = World::new(|number, _| {
        if number == 0 {
            Fault::Silent
        } else {
            Fault::None
        }
    });
    let server = Server::start(&world);
    let client = client(&server, Duration::from_millis(200)).await;
    let outcome = client.send(signal("ada", "1")).await.expect("it was sent");
    assert!(
        matches!(&outcome, Outcome::Unknown(e) if e.is_unknown()),
        "{outcome:?}"
    );
    // the stream is still open and the signal is still asked for on it: a new client asks anew
    let again = Client::connect(server.url())
        .await
        .expect("the server is there");
    let outcome = again.send(signal("ada", "1")).await.expect("it was sent");
    let receipt = outcome.receipt().expect("it has a receipt");
    assert!(receipt.duplicate);
    assert_eq!(
        (receipt.word(), receipt.first_word()),
        ("duplicate", "started")
    );
    assert_eq!(world.applied(), 1);
}

#[tokio::test]
async fn an_invalid_signal_is_refused_with_its_field_and_the_stream_goes_on() {
    let world = World::new(|_, s| {
        if s.id == "bad" {
            Fault::Invalid
        } else {
            Fault::None
        }
    });
    let server = Server::start(&world);
    let client = client(&server, Duration::from_secs(5)).await;
    match client
        .send(signal("ada", "bad"))
        .await
        .expect("it was sent")
    {
        Outcome::Refused(error) => {
            assert!(error.is_invalid());
            assert_eq!(error.violations()[0].field, "signal.type");
            assert_eq!(error.cause(), "field");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        client.send(signal("ada", "good")).await,
        Ok(Outcome::Done(_))
    ));
}

#[tokio::test]
async fn overload_to_the_end_of_the_deadline_is_an_error_and_nothing_happened() {
    let world = World::new(|_, _| Fault::Overload);
    let server = Server::start(&world);
    let client = client(&server, Duration::from_millis(300)).await;
    let error = client
        .send(signal("ada", "1"))
        .await
        .expect_err("it was not taken");
    assert_eq!(error.code(), Code::Overloaded);
    assert_eq!(error.cause(), "overloaded_shard");
    assert!(world.state().arrived > 1, "it was tried again");
    assert_eq!(world.applied(), 0);
}

#[tokio::test]
async fn nobody_there_is_unreachable_at_once_and_within_the_deadline() {
    // a port that was free a moment ago, at an address where nobody else asks for one
    let address = std::net::TcpListener::bind("127.0.1.2:0")
        .and_then(|l| l.local_addr())
        .expect("a port is free");
    let url = format!("http://{address}");
    let error = Client::connect(&url).await.expect_err("nobody is there");
    assert_eq!(error.code(), Code::Unreachable);
    let lazy = Client::builder(&url)
        .deadline(Duration::from_millis(300))
        .connect_lazy()
        .expect("the address is one");
    let error = lazy
        .send(signal("ada", "1"))
        .await
        .expect_err("nobody is there");
    assert_eq!(error.code(), Code::Unreachable);
    assert!(!error.is_unknown(), "nothing was sent: {error:?}");
    let error = lazy.journeys().await.expect_err("nobody is there");
    assert_eq!(error.code(), Code::Unreachable, "{error:?}");
}

#[tokio::test]
async fn a_service_that_the_server_does_not_have_is_unsupported_at_once() {
    let server = Server::start(&World::faultless());
    let client = client(&server, Duration::from_secs(30)).await;
    let began = Instant::now();
    let execution = sojourn_client::ExecutionRef::Id("0-0-1".into());
    let error = client
        .get(&execution, sojourn_client::Read::default())
        .await
        .expect_err("this server has no such service");
    assert_eq!(error.code(), Code::Unsupported);
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "it was tried again and again"
    );
}

#[tokio::test]
async fn the_last_client_gone_still_answers_what_was_handed_over() {
    let world = World::faultless();
    let server = Server::start(&world);
    let client = client(&server, Duration::from_secs(5)).await;
    let pending = client
        .enqueue(signal("ada", "1"))
        .await
        .expect("there is room");
    drop(client);
    assert!(matches!(pending.await, Ok(Outcome::Done(_))));
}

/// Applications spawn what the SDK gives them: every future must be able to move between threads.
#[tokio::test]
async fn everything_can_be_spawned() {
    use futures::StreamExt as _;
    use sojourn_client::{Command, Deactivation, ExecutionRef, Filter, Read};
    let server = Server::start(&World::faultless());
    let client = client(&server, Duration::from_secs(5)).await;
    let reference = ExecutionRef::Id("0-0-1".into());
    let queries = tokio::spawn({
        let (client, reference) = (client.clone(), reference.clone());
        async move {
            let command = Command::new("ada", "test");
            let mut unsupported = 0;
            unsupported += u32::from(client.why(&reference, Read::default()).await.is_err());
            unsupported += u32::from(client.hold(&reference, &command).await.is_err());
            unsupported += u32::from(client.resume(&reference, &command).await.is_err());
            unsupported += u32::from(client.stop(&reference, None, &command).await.is_err());
            unsupported += u32::from(
                client
                    .override_(&reference, "x", false, &command)
                    .await
                    .is_err(),
            );
            unsupported += u32::from(
                client
                    .deactivate("x", Deactivation::Drain, "ada")
                    .await
                    .is_err(),
            );
            unsupported += u32::from(client.watch("", "", None).await.is_err());
            let mut all = std::pin::pin!(client.list(Filter::default()));
            unsupported += u32::from(all.next().await.is_some_and(|e| e.is_err()));
            let mut timeline = std::pin::pin!(client.timeline(reference, Read::default()));
            unsupported += u32::from(timeline.next().await.is_some_and(|e| e.is_err()));
            unsupported += u32::from(timeline.next().await.is_none());
            unsupported
        }
    });
    assert_eq!(queries.await.expect("it ends"), 10);
    let command = tokio::spawn(async move {
        let (mut say, said) = sojourn_client::cli::Say::captured();
        let words = ["sojourn", "journey", "list", "--server", &server.url()].map(str::to_owned);
        let exit = sojourn_client::cli::Standalone::run(words, &mut say).await;
        (exit.is_ok(), said.talk())
    });
    let (ran, talk) = command.await.expect("it ends");
    assert!(ran && talk.starts_with("no journeys"), "{talk}");
}
