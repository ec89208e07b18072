//! **What was mended works.** (About liveness.) Once everything has been mended and the cluster says that it is whole, every
//! valid signal gets its receipt and every read its answer within its deadline.

use crate::history::{History, Told};

/// What was asked after `calm` and got no answer.
pub fn check(history: &History, calm: u64) -> Vec<String> {
    let mut broken = Vec::new();
    let sent = history
        .attempts
        .iter()
        .filter(|a| a.begun >= calm && !a.wrong);
    let mut count = 0;
    for attempt in sent {
        count += 1;
        if let Told::Refused(why) | Told::Unknown(why) = &attempt.told {
            broken.push(format!(
                "works again: signal {} of {} sent at {} µs, all being whole since {calm} µs, got no receipt by {} µs: {why}",
                attempt.id,
                history.name(attempt.customer),
                attempt.begun,
                attempt.ended
            ));
        }
    }
    for look in history.looks.iter().filter(|l| l.begun >= calm) {
        count += 1;
        if let Err(why) = &look.saw {
            broken.push(format!(
                "works again: a read of {} at {} µs, all being whole since {calm} µs, got no answer by {} µs: {why}",
                history.name(look.customer),
                look.begun,
                look.ended
            ));
        }
    }
    if count == 0 {
        broken.push("works again: nothing was asked after all was whole".into());
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::super::made::*;
    use super::*;
    use crate::history::Look;

    #[test]
    fn what_gets_no_answer_in_calm_times_is_found() {
        let mut history = history(vec![sent("a", 0, None), sent("b", 20, Some(30))]);
        assert_eq!(check(&history, 10), Vec::<String>::new());
        assert_eq!(check(&history, 0).len(), 1);
        assert_eq!(check(&history, 40).len(), 1, "nothing was asked");
        history.looks.push(Look {
            customer: 0,
            client: 0,
            begun: 20,
            ended: 30,
            saw: Err("no answer".into()),
        });
        assert_eq!(check(&history, 10).len(), 1);
    }
}
