//! From a broken world to a smaller one that is broken too: without the faults that it does not need, shorter, with fewer
//! clients.
//!
//! It does not know what is broken: somebody else lives through each candidate and says.

use super::net::Wires;
use super::seed::Plan;

/// Worlds that are lived through for one that is made smaller, at most.
const LIVES: usize = 120;
/// The shortest rough part that is tried, in milliseconds.
const SHORTEST: u64 = 500;

/// What can be set in a plan by its name.
pub const NAMES: [&str; 16] = [
    "crashes",
    "stands",
    "cuts",
    "disks",
    "stores",
    "transfers",
    "moves",
    "histories",
    "commands",
    "publishes",
    "skew",
    "wires",
    "write_takes",
    "nodes",
    "clients",
    "rough",
];

/// Something that is another than the seed says, as `name=number`.
pub type Setting = (&'static str, u64);

/// Reads `name=number`.
///
/// # Errors
/// A text: there is no such name, or it is no number.
pub fn setting(text: &str) -> Result<Setting, String> {
    let refuse = || {
        format!(
            "{text:?}: expected NAME=NUMBER, NAME one of {}",
            NAMES.join(", ")
        )
    };
    let (name, number) = text.split_once('=').ok_or_else(refuse)?;
    let name = NAMES.into_iter().find(|n| *n == name).ok_or_else(refuse)?;
    Ok((name, number.parse().map_err(|_| refuse())?))
}

/// Sets something in a plan. Wires are good, whatever the number is.
pub fn set(plan: &mut Plan, (name, number): Setting) {
    match name {
        "crashes" => plan.crashes = number,
        "stands" => plan.stands = number,
        "cuts" => plan.cuts = number,
        "disks" => plan.disks = number,
        "stores" => plan.stores = number,
        "transfers" => plan.transfers = number,
        "moves" => plan.moves = number,
        "histories" => plan.histories = number,
        "commands" => plan.commands = number,
        "publishes" => plan.publishes = number,
        "skew" => plan.skew = i64::try_from(number).unwrap_or(i64::MAX),
        "wires" => plan.wires = Wires::GOOD,
        "write_takes" => plan.write_takes = number.max(1),
        "nodes" => plan.nodes = number.clamp(3, 5),
        "clients" => plan.clients = number.clamp(1, 64),
        _ => plan.rough = number.clamp(1, 60_000),
    }
}

/// What would make a world smaller in one respect, the smallest first.
fn candidates(plan: &Plan, name: &'static str) -> Vec<u64> {
    let halves = |from: u64, least: u64| {
        let halved = (1..=3).rev().map(|n| from >> n);
        halved.filter(|n| *n >= least).collect()
    };
    match name {
        "write_takes" => vec![400],
        "nodes" => vec![3],
        "clients" => halves(plan.clients, 1),
        "rough" => halves(plan.rough, SHORTEST),
        _ => vec![0],
    }
}

/// The settings with which a broken world becomes smaller and `is_broken` still says so.
pub fn shrink(plan: &Plan, mut is_broken: impl FnMut(&Plan) -> bool) -> Vec<Setting> {
    let (mut least, mut settings, mut lives) = (plan.clone(), Vec::<Setting>::new(), 0);
    loop {
        let mut smaller = false;
        for name in NAMES {
            for number in candidates(&least, name) {
                let mut tried = least.clone();
                set(&mut tried, (name, number));
                if tried == least {
                    continue;
                }
                if lives == LIVES {
                    return settings;
                }
                lives += 1;
                if is_broken(&tried) {
                    least = tried;
                    settings.retain(|(known, _)| *known != name);
                    settings.push((name, number));
                    smaller = true;
                    break;
                }
            }
        }
        if !smaller {
            return settings;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_it_takes_is_left() {
        let mut plan = Plan::of_shards(3);
        for name in NAMES.iter().filter(|n| **n != "wires") {
            set(&mut plan, (name, 4_000));
        }
        let mut lived = 0;
        let needs = |plan: &Plan| plan.moves > 0 && plan.clients >= 5 && plan.rough >= 900;
        let settings = shrink(&plan, |plan| {
            lived += 1;
            needs(plan)
        });
        let mut least = plan.clone();
        for setting in &settings {
            set(&mut least, *setting);
        }
        assert!(needs(&least));
        assert_eq!(least.moves, plan.moves, "it takes this one");
        let faults = [
            least.crashes,
            least.stands,
            least.cuts,
            least.disks,
            least.stores,
            least.transfers,
            least.histories,
            least.commands,
            least.publishes,
        ];
        assert_eq!(faults, [0; 9]);
        assert_eq!(
            (least.skew, least.nodes, &least.wires),
            (0, 3, &Wires::GOOD)
        );
        assert!(least.clients < 10 && least.rough < 1_800, "{least:?}");
        assert!(lived <= LIVES, "{lived}");
    }

    #[test]
    fn a_setting_is_read_or_refused_with_what_there_is() {
        assert_eq!(setting("cuts=0"), Ok(("cuts", 0)));
        for wrong in ["cuts", "cuts=", "cuts=-1", "weather=1", "=1", ""] {
            let why = setting(wrong).expect_err(wrong);
            assert!(
                why.contains("NAME=NUMBER") && why.contains("transfers"),
                "{why}"
            );
        }
    }
}
