//! The book on its own: every case says what is added, what the server does and what must come out.

use super::*;

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
        Desk {
            book: Book::default(),
            now: Instant::now(),
        }
    }

    fn add(&mut self, customer: &str, id: &str) -> oneshot::Receiver<Answer> {
        let (reply, answer) = oneshot::channel();
        self.book.add(Submit {
            workspace: "w".into(),
            signal: signal(customer, id),
            deadline: self.now + Duration::from_secs(5),
            reply,
        });
        answer
    }

    /// Sends all that may go; the ids in their order.
    fn send(&mut self) -> Vec<(u64, String)> {
        std::iter::from_fn(|| self.book.next())
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

    fn receipt(&mut self, number: u64) {
        let receipt = v1::Receipt {
            no_match: true,
            ..Default::default()
        };
        self.book.answer(
            number,
            Some(v1::item_result::Result::Receipt(receipt)),
            self.now,
        );
    }

    fn error(&mut self, number: u64, code: tonic::Code) {
        let item = v1::ItemError {
            code: code as i32,
            message: "no".into(),
            ..Default::default()
        };
        self.book
            .answer(number, Some(v1::item_result::Result::Error(item)), self.now);
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
    let _first = desk.add("Ada", "1");
    let _second = desk.add(" ada ", "2");
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
    desk.book.broke();
    assert_eq!(desk.ids(), ["a", "c"]);
    drop(answers);
}

#[test]
fn a_deadline_after_sending_is_unknown_and_the_signal_still_goes_before_its_follower() {
    let mut desk = Desk::new();
    let mut first = desk.add("ada", "1");
    assert_eq!(desk.ids(), ["1"]);
    desk.book.broke();
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
fn an_unknown_signal_is_asked_after_for_a_minute_and_then_let_go() {
    let mut desk = Desk::new();
    let _first = desk.add("ada", "1");
    desk.send();
    desk.book.broke();
    desk.pass(Duration::from_secs(6));
    assert!(desk.book.is_idle());
    desk.pass(GHOST);
    assert!(desk.book.entries.is_empty() && desk.book.customers.is_empty());
    assert_eq!(
        (desk.book.sent, desk.book.sent_bytes, desk.book.held_bytes),
        (0, 0, 0)
    );
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
    assert_eq!(desk.book.sent, 1);
}
