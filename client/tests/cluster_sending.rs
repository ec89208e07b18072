//! Sending signals to several servers of which some move, die, hang or cannot be reached: straight to the owner where that
//! can be, nothing lost, nothing twice, the order of each customer kept.

mod world;

use sojourn_client::{Client, Code, Identifier, Outcome, Signal};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use world::{Fault, Server, World};

/// How long anything may take in these tests.
const LONG: Duration = Duration::from_secs(60);

fn signal(customer: &str, id: impl Into<String>) -> Signal {
    Signal::with_id("a.b", id)
        .source("t")
        .customer("id", customer)
}

async fn client(servers: &[&Server], deadline: Duration) -> Client {
    let urls: Vec<String> = servers.iter().map(|s| s.url()).collect();
    Client::builder(urls.join(","))
        .deadline(deadline)
        .connect()
        .await
        .expect("one of them is there")
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
    prefix: &str,
    count: usize,
    customers: usize,
) -> HashMap<String, Vec<String>> {
    let mut sent: HashMap<String, Vec<String>> = HashMap::new();
    let mut pending = Vec::new();
    for number in 0..count {
        let customer = format!("{prefix}{}", number % customers);
        let id = format!("{prefix}-{number}");
        sent.entry(customer.clone()).or_default().push(id.clone());
        let handed_over = client.enqueue(signal(&customer, id)).await;
        pending.push(handed_over.expect("there is room"));
    }
    for answer in pending {
        let outcome = answer.await.expect("a server is there");
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    }
    sent
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::task::yield_now().await;
    }
}

/// Sends until everything goes straight: the client has learnt the topology and reached every owner.
async fn straight(world: &World, client: &Client, round: &str) {
    let deadline = Instant::now() + LONG;
    for number in 0.. {
        world.ways();
        send_many(client, &format!("{round}{number}x"), 50, 50).await;
        if world.ways().1 == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{round}: signals go astray");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_and_queries_go_straight_to_the_owner_and_follow_it() {
    let world = World::faultless();
    world.state().topology.hands_over = true;
    let servers: Vec<Server> = (1..=3).map(|id| world.join(id)).collect();
    world.owners(&[1, 2, 3, 1]);
    let client = client(&[&servers[0]], LONG).await;
    straight(&world, &client, "first").await;
    for number in 0..20 {
        let customer = Identifier::new("id", format!("q{number}"));
        let answer = client.receipt(&customer, "t", "none").await;
        assert!(answer.is_err_and(|e| e.is_not_found()));
    }
    assert_eq!(world.ways(), (20, 0), "queries go straight, too");
    world.owners(&[3, 1, 2, 2]);
    straight(&world, &client, "moved").await;
    let fourth = world.join(4);
    world.owners(&[4, 4, 4, 4]);
    straight(&world, &client, "joined").await;
    drop(fourth);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_the_owner_says_who_is_and_that_one_is_asked() {
    let world = World::faultless();
    let servers: Vec<Server> = (1..=2).map(|id| world.join(id)).collect();
    world.owners(&[1]);
    let client = client(&[&servers[0]], Duration::from_secs(10)).await;
    straight(&world, &client, "first").await;
    // the servers know that it has moved, and have not told yet
    world.state().topology.owners = vec![2];
    let customer = Identifier::new("id", "ada");
    let deadline = Instant::now() + LONG;
    loop {
        let answer = client.receipt(&customer, "t", "1").await;
        assert!(
            answer.is_err_and(|e| e.is_not_found()),
            "its owner has answered"
        );
        let (straight, astray) = world.ways();
        if straight > 0 {
            assert_eq!((straight, astray), (1, 1));
            break;
        }
        assert!(Instant::now() < deadline);
    }
    // to nobody that is known: said as it is, and nothing is in doubt
    world.owners(&[0]);
    let short = client.with_deadline(Duration::from_millis(300));
    let error = short.receipt(&customer, "t", "1").await;
    let error = error.expect_err("nobody owns it");
    assert_eq!(
        (error.code(), error.cause()),
        (Code::Unreachable, "not_owner")
    );
    assert!(!error.is_unknown());
    let error = short.send(signal("ada", "1")).await;
    let error = error.expect_err("nobody owns it");
    assert!(error.code() == Code::Unreachable && !error.is_unknown());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_leads_to_another_cluster_is_not_used() {
    let (world, other) = (World::faultless(), World::faultless());
    world.state().topology.hands_over = true;
    let servers: Vec<Server> = (1..=2).map(|id| world.join(id)).collect();
    other.state().topology.name = "another".to_owned();
    let strangers: Vec<Server> = (1..=2).map(|id| other.join(id)).collect();
    other.owners(&[1, 2]);
    // as through a tunnel, behind which an address means something else
    world.advertise(2, &strangers[1].address.to_string());
    // and this one is a node of the cluster, but not the one that it is said to be
    world.advertise(3, &servers[0].address.to_string());
    world.owners(&[1, 2, 3, 1]);
    let client = client(&[&servers[0]], LONG).await;
    let sent = send_many(&client, "c", 500, 50).await;
    assert_eq!(world.state().applied, sent);
    assert_eq!((other.applied(), other.requests()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_under_load_is_passed_over() {
    for hands_over in [true, false] {
        let world = World::faultless();
        world.state().topology.hands_over = hands_over;
        let mut servers: Vec<Server> = (1..=3).map(|id| world.join(id)).collect();
        world.owners(&[1, 2, 3, 3]);
        let client = client(&[&servers[2], &servers[0]], LONG).await;
        straight(&world, &client, "warm").await;
        world.state().applied.clear();
        let sending = tokio::spawn({
            let client = client.clone();
            async move { send_many(&client, "c", 20_000, 500).await }
        });
        until("nothing arrives", || world.applied() > 2_000).await;
        // home, and the owner of half of all: first it dies, a while later its shards have other owners
        drop(servers.pop());
        let before = world.applied();
        if hands_over {
            until("the others take nothing", || {
                world.applied() > before + 2_000
            })
            .await;
        }
        world.owners(&[1, 2, 2, 1]);
        let sent = sending.await.expect("it ends");
        assert_eq!(world.state().applied, sent, "hands over: {hands_over}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn order_and_once_only_survive_owners_that_move_and_streams_that_break() {
    for seed in 1..=4 {
        let world = World::new(move |number, _| match mixed(seed, number) % 80 {
            0 => Fault::BreakBefore,
            1 => Fault::BreakAfter,
            2..=8 => Fault::Overload,
            9..=11 => Fault::Unknown,
            _ => Fault::None,
        });
        world.state().topology.hands_over = seed % 2 == 0;
        let servers: Vec<Server> = (1..=3).map(|id| world.join(id)).collect();
        world.owners(&[1, 2, 3, 0]);
        let client = client(&[&servers[0], &servers[1]], LONG).await;
        let sending = tokio::spawn({
            let client = client.clone();
            async move { send_many(&client, "c", 3_000, 60).await }
        });
        let mut moves = 0;
        let mut moved_at = (0, Instant::now());
        while !sending.is_finished() {
            let asked = world.requests();
            // after so many requests, and also when all wait for a shard that nobody owns
            if asked >= moved_at.0 + 200 || moved_at.1.elapsed() > Duration::from_millis(100) {
                moved_at = (asked, Instant::now());
                moves += 1;
                world.owners(&[0, 1, 2, 3].map(|shard| mixed(seed ^ 77, moves * 4 + shard) % 4));
            }
            tokio::task::yield_now().await;
        }
        let sent = sending.await.expect("it ends");
        assert_eq!(world.state().applied, sent, "seed {seed}");
        assert!(moves > 5, "seed {seed}: owners moved {moves} times");
        let (straight, astray) = world.ways();
        assert!(
            straight > 0 && astray > 0,
            "seed {seed}: {straight}, {astray}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_hangs_is_passed_over_within_the_deadline() {
    let world = World::faultless();
    world.state().topology.hands_over = true;
    let servers: Vec<Server> = (1..=2).map(|id| world.join(id)).collect();
    world.owners(&[1, 2]);
    let client = client(&[&servers[0]], Duration::from_secs(20)).await;
    straight(&world, &client, "warm").await;
    world.state().applied.clear();
    world.state().topology.mute = vec![2];
    let sent = send_many(&client, "c", 20, 20).await;
    assert_eq!(world.state().applied, sent);
    for number in 0..4 {
        let customer = Identifier::new("id", format!("q{number}"));
        let short = client.with_deadline(Duration::from_secs(4));
        let answer = short.receipt(&customer, "t", "none").await;
        assert!(answer.is_err_and(|e| e.is_not_found()), "{number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_cannot_be_reached_is_gone_round() {
    let world = World::faultless();
    world.state().topology.hands_over = true;
    let servers: Vec<Server> = (1..=3).map(|id| world.join(id)).collect();
    // a port that was free a moment ago, at an address where nobody else asks for one, and what is no address at all
    let nowhere = std::net::TcpListener::bind("127.0.1.2:0")
        .and_then(|l| l.local_addr())
        .expect("a port is free");
    world.advertise(2, &nowhere.to_string());
    world.advertise(3, "not an address");
    world.owners(&[1, 2, 3, 1]);
    let client = client(&[&servers[0]], LONG).await;
    let sent = send_many(&client, "c", 500, 50).await;
    assert_eq!(world.state().applied, sent);
    let customer = Identifier::new("id", "c1");
    for number in 0..20 {
        let id = format!("none{number}");
        let answer = client.receipt(&customer, "t", &id).await;
        assert!(answer.is_err_and(|e| e.is_not_found()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_seed_that_answers_will_do() {
    let world = World::faultless();
    let server = world.join(1);
    world.owners(&[1]);
    let down = std::net::TcpListener::bind("127.0.1.2:0")
        .and_then(|l| l.local_addr())
        .expect("a port is free");
    let urls = format!("http://{down}, {}", server.url());
    let connected = Client::connect(&urls).await.expect("the second answers");
    assert!(matches!(
        connected.send(signal("ada", "1")).await,
        Ok(Outcome::Done(_))
    ));
    let lazy = Client::builder(&urls).connect_lazy().expect("addresses");
    assert!(matches!(
        lazy.send(signal("ada", "2")).await,
        Ok(Outcome::Done(_))
    ));
    let lazy = Client::builder(&urls).connect_lazy().expect("addresses");
    let customer = Identifier::new("id", "ada");
    let receipt = lazy
        .receipt(&customer, "t", "2")
        .await
        .expect("it was sent");
    assert_eq!(receipt.signal_id, "2");
    let error = Client::connect(format!("http://{down},http://{down}")).await;
    let error = error.expect_err("nobody is there");
    assert_eq!(error.code(), Code::Unreachable);
    assert!(Client::connect(" , ").await.is_err_and(|e| e.is_invalid()));
}
