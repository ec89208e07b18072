//! Which link a signal goes to: a table by shard, made anew when links open or break or owners change. Knows no network.

use crate::nodes::Address;
use crate::topology::{View, slice};
use std::collections::BTreeMap;

/// A link, as long as a lane lives never given twice.
pub(crate) type LinkId = u32;

/// The table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Routes {
    /// The link of each shard; one, when nothing is known of shards; none, while no link is open.
    by_shard: Vec<LinkId>,
    /// All that are open, in order.
    open: Vec<LinkId>,
}

impl Routes {
    /// The owner of a shard where its link is open, else any that is, the shards shared out: it hands over.
    pub fn new(view: &View, open: &BTreeMap<LinkId, Address>) -> Routes {
        let links: Vec<LinkId> = open.keys().copied().collect();
        let to = |shard: usize| {
            let owner = view.owner_of(shard);
            let straight = open.iter().find(|(_, address)| Some(*address) == owner);
            straight.map_or_else(|| links[shard % links.len()], |(link, _)| *link)
        };
        let shards = if links.is_empty() {
            0
        } else {
            view.shards().max(1)
        };
        Routes {
            by_shard: (0..shards).map(to).collect(),
            open: links,
        }
    }

    /// The link for a customer; another than the avoided, where there is one.
    pub fn link(&self, customer: u64, avoid: Option<LinkId>) -> Option<LinkId> {
        let shard = slice(customer, self.by_shard.len());
        let link = *self.by_shard.get(shard)?;
        if avoid != Some(link) {
            return Some(link);
        }
        let others: Vec<LinkId> = self.open.iter().copied().filter(|l| *l != link).collect();
        match others.len() {
            0 => Some(link),
            count => others.get(shard % count).copied(),
        }
    }

    /// Whether a signal could go to another link.
    pub fn has_choice(&self) -> bool {
        self.open.len() > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::address;
    use sojourn_proto::v1;

    fn view(owners: &[u64]) -> View {
        let node = |id: u64| v1::NodeInfo {
            id,
            grpc: format!("n{id}:1"),
            ..Default::default()
        };
        View::of_wire(&v1::Topology {
            shards: u32::try_from(owners.len()).unwrap_or_default(),
            owners: owners.to_vec(),
            nodes: vec![node(1), node(2), node(3)],
            ..Default::default()
        })
    }

    fn open(nodes: &[u64]) -> BTreeMap<LinkId, Address> {
        let link = |id: &u64| {
            (
                LinkId::try_from(*id).unwrap_or_default(),
                address(&format!("n{id}:1")),
            )
        };
        nodes.iter().map(link).collect()
    }

    #[test]
    fn straight_where_it_can_be_and_any_else() {
        // owners, links that are open, the link of each quarter of the customers
        type Case<'a> = (&'a [u64], &'a [u64], [Option<LinkId>; 4]);
        let cases: [Case<'_>; 6] = [
            (
                &[1, 2, 3, 1],
                &[1, 2, 3],
                [Some(1), Some(2), Some(3), Some(1)],
            ),
            (&[1, 2, 3, 1], &[2, 3], [Some(2), Some(2), Some(3), Some(3)]),
            (&[1, 0, 0, 1], &[1, 2], [Some(1), Some(2), Some(1), Some(1)]),
            (&[1, 2, 3, 1], &[3], [Some(3); 4]),
            (&[], &[2, 3], [Some(2); 4]),
            (&[1, 2, 3, 1], &[], [None; 4]),
        ];
        for (owners, links, expected) in cases {
            let routes = Routes::new(&view(owners), &open(links));
            let found = [0_u64, 1, 2, 3].map(|quarter| routes.link(quarter << 62, None));
            assert_eq!(found, expected, "{owners:?} {links:?}");
        }
    }

    #[test]
    fn the_avoided_is_taken_only_when_it_is_the_only_one() {
        let two = Routes::new(&view(&[1, 2]), &open(&[1, 2]));
        assert_eq!(
            (two.link(0, Some(1)), two.link(0, Some(2))),
            (Some(2), Some(1))
        );
        let one = Routes::new(&view(&[1, 2]), &open(&[1]));
        assert_eq!(one.link(0, Some(1)), Some(1));
        assert!(two.has_choice() && !one.has_choice());
    }
}
