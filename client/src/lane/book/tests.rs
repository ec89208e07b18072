//! The book on its own: every case says what is added, what the server does and what must come out.

use super::*;
use crate::nodes::address;
use crate::topology::View;

/// The only link of most cases.
const ONE: LinkId = 1;

fn signal(customer: &str, id: &str) -> v1::Signal {
    v1::Signal {
        id: id.into(),
        source: "t".into(),
        r#type: "a.b".into(),
        identifiers: vec![v1::Identifier {
            name: "id".into(),
            value: customer.into(),
        }],
        ..Default::default()
    }
}

struct Desk {
    book: Book,
    now: Instant,
}

impl Desk {
    fn new() -> Desk {
        let mut desk = Desk {
            book: Book::default(),
            now: Instant::now(),
        };
        desk.links(&[ONE]);
        desk
    }

    /// These links are open, and nothing is known of shards.
    fn links(&mut self, open: &[LinkId]) {
        self.routes(&View::default(), open);
    }

    /// These links are open, to the nodes with these numbers.
    fn routes(&mut self, view: &View, open: &[LinkId]) {
        let open = open.iter().map(|id| (*id, address(&format!("n{id}:1"))));
        self.book.set_routes(Routes::new(view, &open.collect()));
    }

    fn add(&mut self, customer: &str, id: &str) -> oneshot::Receiver<Answer> {
        self.add_for(customer, id, Duration::from_secs(5))
    }

    fn add_for(&mut self, customer: &str, id: &str, within: Duration) -> oneshot::Receiver<Answer> {
        let (reply, answer) = oneshot::channel();
        self.book.add(Submit {
            workspace: "w".into(),
            signal: signal(customer, id),
            deadline: self.now + within,
            reply,
            room: None,
        });
        answer
    }

    /// Sends all that may go; the ids in their order.
    fn send(&mut self) -> Vec<(u64, String)> {
        self.send_on(ONE)
    }

    fn send_on(&mut self, link: LinkId) -> Vec<(u64, String)> {
        std::iter::from_fn(|| self.book.next(link, self.now))
            .map(|r| {
                (
                    r.number,
                    v1::Signal::decode(r.signal).unwrap_or_default().id,
                )
            })
            .collect()
    }

    fn ids(&mut self) -> Vec<String> {
        self.send().into_iter().map(|(_, id)| id).collect()
    }

    fn ids_on(&mut self, link: LinkId) -> Vec<String> {
        self.send_on(link).into_iter().map(|(_, id)| id).collect()
    }

    fn receipt(&mut self, number: u64) {
        self.receipt_on(ONE, number);
    }

    fn receipt_on(&mut self, link: LinkId, number: u64) {
        let receipt = v1::Receipt {
            no_match: true,
            ..Default::default()
        };
        self.book.answer(
            link,
            number,
            Some(v1::item_result::Result::Receipt(receipt)),
            self.now,
        );
    }

    fn error(&mut self, number: u64, code: tonic::Code) {
        self.error_on(ONE, number, code);
    }

    fn error_on(&mut self, link: LinkId, number: u64, code: tonic::Code) {
        let item = v1::ItemError {
            code: code as i32,
            message: "no".into(),
            ..Default::default()
        };
        let result = Some(v1::item_result::Result::Error(item));
        self.book.answer(link, number, result, self.now);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.book.tick(self.now);
    }
}

#[test]
fn of_one_customer_one_signal_is_under_way_and_the_next_follows_its_answer() {
    let mut desk = Desk::new();
    let mut first = desk.add("ada", "1");
    let _second = desk.add("ada", "2");
    let _other = desk.add("bob", "3");
    let sent = desk.send();
    assert_eq!(
        sent.iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>(),
        ["1", "3"]
    );
    desk.receipt(sent[0].0);
    assert!(matches!(first.try_recv(), Ok(Ok(Outcome::Done(_)))));
    assert_eq!(desk.ids(), ["2"]);
}

#[test]
fn two_spellings_of_one_customer_do_not_overtake_each_other() {
    let mut desk = Desk::new();
    let _first = desk.add("Am\u{e9}lie", "1");
    let _second = desk.add(" Ame\u{301}lie ", "2");
    assert_eq!(desk.ids(), ["1"]);
}

#[test]
fn an_overloaded_signal_goes_again_before_the_next_of_its_customer() {
    let mut desk = Desk::new();
    let _first = desk.add("ada", "1");
    let _second = desk.add("ada", "2");
    let sent = desk.send();
    desk.error(sent[0].0, tonic::Code::ResourceExhausted);
    assert_eq!(desk.ids(), Vec::<String>::new(), "its pause is not over");
    desk.pass(PAUSE_MAX);
    let again = desk.send();
    assert_eq!(again[0].1, "1");
    desk.receipt(again[0].0);
    assert_eq!(desk.ids(), ["2"]);
}

#[test]
fn the_pause_that_a_server_asks_for_is_kept() {
    let asked = Duration::from_millis(700);
    for attempts in [0, 3, 30] {
        let length = pause(attempts, Some(asked));
        assert!(
            length > asked && length <= asked + PAUSE_MAX,
            "{attempts}: {length:?}"
        );
    }
    assert!(pause(40, None) <= PAUSE_MAX);
}

#[test]
fn what_was_under_way_when_the_connection_broke_goes_again_in_the_old_order() {
    let mut desk = Desk::new();
    let answers: Vec<_> = ["a", "b", "c"]
        .iter()
        .map(|customer| desk.add(customer, customer))
        .collect();
    let sent = desk.send();
    desk.receipt(sent[1].0);
    desk.book.broke(ONE);
    assert_eq!(desk.ids(), ["a", "c"]);
    drop(answers);
}

#[test]
fn a_deadline_after_sending_is_unknown_and_the_signal_still_goes_before_its_follower() {
    let mut desk = Desk::new();
    let mut first = desk.add("ada", "1");
    assert_eq!(desk.ids(), ["1"]);
    desk.book.broke(ONE);
    desk.pass(Duration::from_secs(6));
    assert!(matches!(first.try_recv(), Ok(Ok(Outcome::Unknown(e))) if e.is_unknown()));
    let _second = desk.add("ada", "2");
    let sent = desk.send();
    assert_eq!(sent[0].1, "1", "the unknown one is resolved first");
    assert_eq!(sent.len(), 1);
    desk.receipt(sent[0].0);
    assert_eq!(desk.ids(), ["2"]);
}

#[test]
fn a_deadline_of_a_follower_says_nothing_of_what_goes_before_it() {
    let mut desk = Desk::new();
    let mut first = desk.add("ada", "1");
    let mut second = desk.add_for("ada", "2", Duration::from_secs(1));
    let mut third = desk.add("ada", "3");
    let sent = desk.send();
    desk.pass(Duration::from_secs(2));
    assert!(matches!(second.try_recv(), Ok(Err(_))), "it was not sent");
    assert!(
        matches!(third.try_recv(), Ok(Err(_))),
        "nor what follows it"
    );
    assert!(first.try_recv().is_err(), "it is under way");
    desk.receipt(sent[0].0);
    assert!(matches!(first.try_recv(), Ok(Ok(Outcome::Done(_)))));
}

#[test]
fn an_unknown_signal_is_asked_after_for_a_minute_and_then_let_go() {
    let mut desk = Desk::new();
    let _first = desk.add("ada", "1");
    desk.send();
    desk.book.broke(ONE);
    desk.pass(Duration::from_secs(6));
    assert!(desk.book.is_idle());
    desk.pass(GHOST);
    assert!(desk.book.entries.is_empty() && desk.book.customers.is_empty());
    assert!(desk.book.is_calm(ONE));
}

#[test]
fn a_deadline_before_sending_is_an_error_and_the_signal_is_not_sent() {
    let mut desk = Desk::new();
    let mut first = desk.add("ada", "1");
    desk.book
        .trouble
        .set(Some(Error::new(Code::Unreachable, "nobody there")));
    desk.pass(Duration::from_secs(6));
    let answer = first.try_recv();
    assert!(
        matches!(&answer, Ok(Err(e)) if e.code() == Code::Unreachable && !e.is_unknown()),
        "{answer:?}"
    );
    desk.book.trouble.set(None);
    assert_eq!(desk.ids(), Vec::<String>::new());
}

#[test]
fn codes_become_outcomes() {
    use tonic::Code as C;
    // (what an earlier attempt met, what this one met, what the caller gets)
    let cases = [
        (None, C::InvalidArgument, "refused"),
        (None, C::PermissionDenied, "refused"),
        (None, C::Internal, "unknown"),
        (Some(C::DeadlineExceeded), C::InvalidArgument, "unknown"),
        (Some(C::ResourceExhausted), C::InvalidArgument, "refused"),
    ];
    for (before, code, expected) in cases {
        let mut desk = Desk::new();
        let mut answer = desk.add("ada", "1");
        let mut sent = desk.send();
        if let Some(before) = before {
            desk.error(sent[0].0, before);
            desk.pass(PAUSE_MAX);
            sent = desk.send();
        }
        desk.error(sent[0].0, code);
        let found = match answer.try_recv() {
            Ok(Ok(Outcome::Refused(_))) => "refused",
            Ok(Ok(Outcome::Unknown(_))) => "unknown",
            other => panic!("{before:?} then {code:?}: {other:?}"),
        };
        assert_eq!(found, expected, "{before:?} then {code:?}");
    }
}

#[test]
fn an_overload_to_the_end_is_an_error_that_says_so() {
    let mut desk = Desk::new();
    let mut answer = desk.add("ada", "1");
    let sent = desk.send();
    desk.error(sent[0].0, tonic::Code::ResourceExhausted);
    desk.pass(Duration::from_secs(6));
    assert!(matches!(answer.try_recv(), Ok(Err(e)) if e.code() == Code::Overloaded));
}

#[test]
fn the_window_holds_so_many_signals_and_so_many_bytes() {
    let mut desk = Desk::new();
    let answers: Vec<_> = (0..WINDOW + 10)
        .map(|n| desk.add(&n.to_string(), &n.to_string()))
        .collect();
    let sent = desk.send();
    assert_eq!(sent.len(), WINDOW);
    desk.receipt(sent[0].0);
    assert_eq!(desk.send().len(), 1);
    drop(answers);

    let mut desk = Desk::new();
    let mut big = signal("x", "1");
    big.data = vec![b' '; WINDOW_BYTES + 1].into();
    let mut receivers = Vec::new();
    for customer in ["x", "y"] {
        let (reply, answer) = oneshot::channel();
        let mut signal = big.clone();
        signal.identifiers[0].value = customer.into();
        desk.book.add(Submit {
            workspace: "w".into(),
            signal,
            deadline: desk.now + Duration::from_secs(5),
            reply,
            room: None,
        });
        receivers.push(answer);
    }
    assert_eq!(desk.send().len(), 1, "one may always go, the next waits");
}

#[test]
fn a_signal_whose_caller_has_gone_keeps_its_place() {
    let mut desk = Desk::new();
    drop(desk.add("ada", "1"));
    let _second = desk.add("ada", "2");
    let sent = desk.send();
    assert_eq!(sent[0].1, "1");
    desk.receipt(sent[0].0);
    assert_eq!(desk.ids(), ["2"]);
}

#[test]
fn what_waits_behind_a_signal_that_was_not_taken_is_not_sent_either() {
    let mut desk = Desk::new();
    let mut first = desk.add("ada", "1");
    desk.pass(Duration::from_secs(4));
    let mut second = desk.add("ada", "2");
    let _other = desk.add("bob", "3");
    desk.pass(Duration::from_secs(2));
    for answer in [&mut first, &mut second] {
        assert!(matches!(answer.try_recv(), Ok(Err(e)) if e.is_retryable()));
    }
    assert_eq!(desk.ids(), ["3"]);
    // a new one begins anew
    let _third = desk.add("ada", "4");
    assert_eq!(desk.ids(), ["4"]);
}

#[test]
fn the_earliest_goes_first_whatever_became_ready_first() {
    let mut desk = Desk::new();
    let answers: Vec<_> = (0..WINDOW)
        .map(|n| desk.add(&n.to_string(), &n.to_string()))
        .collect();
    let _chained = desk.add("0", "chained");
    let _late = desk.add("late", "late");
    let sent = desk.send();
    desk.receipt(sent[0].0);
    assert_eq!(desk.ids(), ["chained"]);
    drop(answers);
}

#[test]
fn a_late_answer_to_nothing_changes_nothing() {
    let mut desk = Desk::new();
    let _first = desk.add("ada", "1");
    desk.receipt(7);
    desk.receipt(0);
    assert_eq!(desk.ids(), ["1"]);
    assert_eq!(desk.book.sent[&ONE].signals, 1);
}

/// Two shards, owned by nodes 1 and 2; `low` and `high` are customers of them.
fn halves() -> (View, String, String) {
    let node = |id: u64| v1::NodeInfo {
        id,
        grpc: format!("n{id}:1"),
        ..Default::default()
    };
    let view = View::of_wire(&v1::Topology {
        shards: 2,
        owners: vec![1, 2],
        nodes: vec![node(1), node(2)],
        ..Default::default()
    });
    let of = |half: usize| {
        let mut names = (0..).map(|n| format!("c{n}"));
        let found = names.find(|name| {
            let place = topology::place("w", "id", name);
            place.is_some_and(|p| topology::slice(p, 2) == half)
        });
        found.unwrap_or_default()
    };
    (view, of(0), of(1))
}

#[test]
fn each_goes_straight_to_the_owner_and_through_others_when_that_is_not_reached() {
    let (view, low, high) = halves();
    let mut desk = Desk::new();
    desk.routes(&view, &[1, 2]);
    let _a = desk.add(&low, "a");
    let _b = desk.add(&high, "b");
    assert_eq!(
        (desk.ids_on(1), desk.ids_on(2)),
        (vec!["a".into()], vec!["b".into()])
    );
    desk.routes(&view, &[1]);
    desk.book.broke(2);
    desk.routes(&view, &[1]);
    assert_eq!(desk.ids_on(1), ["b"], "the only one left hands it over");
    desk.book.broke(1);
    desk.routes(&view, &[]);
    assert_eq!((desk.ids_on(1).len(), desk.ids_on(2).len()), (0, 0));
    desk.routes(&view, &[2]);
    assert_eq!(desk.ids_on(2), ["a", "b"], "in the old order");
}

#[test]
fn the_next_of_a_customer_waits_for_the_earlier_also_when_its_shard_has_moved() {
    let (view, low, _) = halves();
    let mut desk = Desk::new();
    desk.routes(&view, &[1, 2]);
    let _first = desk.add(&low, "1");
    let _second = desk.add(&low, "2");
    let sent = desk.send_on(1);
    let moved = View::of_wire(&v1::Topology {
        shards: 2,
        owners: vec![2, 2],
        nodes: vec![v1::NodeInfo {
            id: 2,
            grpc: "n2:1".into(),
            ..Default::default()
        }],
        ..Default::default()
    });
    desk.routes(&moved, &[1, 2]);
    assert_eq!(desk.ids_on(2), Vec::<String>::new());
    desk.routes(&view, &[1, 2]);
    desk.error_on(1, sent[0].0, tonic::Code::Unavailable);
    assert_eq!(
        desk.ids_on(2),
        Vec::<String>::new(),
        "its pause is not over"
    );
    // nor need it be, once there is somebody new to ask
    desk.routes(&moved, &[1, 2]);
    let again = desk.send_on(2);
    assert_eq!(again[0].1, "1");
    desk.receipt_on(2, again[0].0);
    assert_eq!(desk.ids_on(2), ["2"]);
}

#[test]
fn who_is_no_owner_is_not_asked_again_while_there_is_another() {
    let (view, low, _) = halves();
    let mut desk = Desk::new();
    desk.routes(&view, &[1, 2]);
    let _first = desk.add(&low, "1");
    let sent = desk.send_on(1);
    desk.error_on(1, sent[0].0, tonic::Code::Unavailable);
    desk.pass(PAUSE_MAX);
    assert_eq!(
        (desk.ids_on(1).len(), desk.ids_on(2)),
        (0, vec!["1".into()])
    );
    // overload is no reason to go elsewhere
    desk.error_on(2, sent[0].0, tonic::Code::ResourceExhausted);
    desk.pass(PAUSE_MAX);
    assert_eq!(desk.ids_on(1), ["1"]);
}

#[test]
fn a_mute_link_is_passed_over_and_its_late_receipt_counts_all_the_same() {
    let (view, low, _) = halves();
    let mut desk = Desk::new();
    desk.routes(&view, &[1, 2]);
    let mut first = desk.add(&low, "1");
    let _second = desk.add(&low, "2");
    let sent = desk.send_on(1);
    desk.pass(TRY - Duration::from_millis(1));
    assert_eq!(desk.ids_on(2), Vec::<String>::new(), "not yet");
    desk.pass(TRY_LOOK);
    assert_eq!(desk.ids_on(2), ["1"]);
    assert!(desk.book.is_calm(1) && !desk.book.is_calm(2));
    // a refusal of the attempt that was given up is no news of the one under way
    desk.error_on(1, sent[0].0, tonic::Code::InvalidArgument);
    assert!(first.try_recv().is_err());
    desk.receipt_on(1, sent[0].0);
    assert!(matches!(first.try_recv(), Ok(Ok(Outcome::Done(_)))));
    assert!(desk.book.is_calm(2));
    assert_eq!(desk.ids_on(1), ["2"]);
    // alone, a link may be as mute as it likes
    desk.links(&[1]);
    desk.pass(TRY);
    assert_eq!(desk.ids_on(1), Vec::<String>::new());
}

#[test]
fn what_the_old_owner_is_mute_about_is_soon_asked_of_the_new_one() {
    let (view, low, high) = halves();
    let mut desk = Desk::new();
    desk.routes(&view, &[1, 2]);
    let _answers = [
        desk.add(&low, "1"),
        desk.add(&low, "2"),
        desk.add(&high, "3"),
    ];
    assert_eq!(
        (desk.ids_on(1), desk.ids_on(2)),
        (vec!["1".into()], vec!["3".into()])
    );
    // both shards are owned by the second node now
    let moved = View::of_wire(&v1::Topology {
        shards: 2,
        owners: vec![2, 2],
        nodes: [1, 2]
            .map(|id| v1::NodeInfo {
                id,
                grpc: format!("n{id}:1"),
                ..Default::default()
            })
            .to_vec(),
        ..Default::default()
    });
    desk.routes(&moved, &[1, 2]);
    desk.pass(TRY_LOOK);
    assert_eq!(desk.ids_on(2), ["1"], "the later one waits for it");
    assert!(desk.ids_on(1).is_empty() && desk.book.is_calm(1));
}

#[test]
fn each_link_has_a_window_of_its_own() {
    let (view, low, high) = halves();
    let mut desk = Desk::new();
    desk.routes(&view, &[1, 2]);
    let mut answers = Vec::new();
    let names = (0..).map(|n| format!("x{n}")).filter(|name| {
        topology::place("w", "id", name).is_some_and(|p| topology::slice(p, 2) == 0)
    });
    for name in names.take(WINDOW) {
        answers.push(desk.add(&name, &name));
    }
    answers.push(desk.add(&low, "late"));
    answers.push(desk.add(&high, "other"));
    assert_eq!(desk.send_on(1).len(), WINDOW);
    assert_eq!(
        desk.ids_on(2),
        ["other"],
        "a full link holds up nobody else"
    );
}
