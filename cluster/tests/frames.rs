//! The bytes of one message of each kind that nodes exchange, kept for ever in `fixtures/frames.txt`.

use prost::Message;
use sojourn_cluster::transport::{FrameBody, SnapshotAnswer, SnapshotPart};
use sojourn_proto::cluster as proto;

fn at(term: u64, node: u64, index: u64) -> Option<proto::LogPosition> {
    Some(proto::LogPosition { term, node, index })
}

fn vote(term: u64, node: u64, committed: bool) -> Option<proto::VoteRecord> {
    Some(proto::VoteRecord {
        term,
        node,
        committed,
    })
}

fn hello() -> Option<proto::Hello> {
    Some(proto::Hello {
        protocol: 1,
        cluster: "abc".to_owned(),
        from: 2,
        to: 3,
    })
}

fn message(body: FrameBody) -> Vec<u8> {
    let frame = proto::Frame {
        number: 300,
        group: 7,
        body: Some(body),
    };
    let message = proto::PeerMessage {
        hello: None,
        frames: vec![frame],
    };
    message.encode_to_vec()
}

fn part(part: SnapshotPart) -> Vec<u8> {
    let message = proto::SnapshotPart {
        hello: hello().filter(|_| matches!(part, SnapshotPart::Begin(_))),
        part: Some(part),
    };
    message.encode_to_vec()
}

fn answer(answer: SnapshotAnswer) -> Vec<u8> {
    let message = proto::SnapshotAnswer {
        hello: hello().filter(|_| matches!(answer, SnapshotAnswer::Wanted(_))),
        answer: Some(answer),
    };
    message.encode_to_vec()
}

fn all() -> Vec<(&'static str, Vec<u8>)> {
    let greeting = proto::PeerMessage {
        hello: hello(),
        frames: Vec::new(),
    };
    let taken =
        |outcome, at, vote| FrameBody::AppendAnswer(proto::AppendAnswer { outcome, at, vote });
    let cover = proto::Cover {
        group: 7,
        at: at(5, 2, 40),
        membership: Some(proto::MembershipRecord {
            voters: vec![proto::VoterSet {
                nodes: vec![1, 2, 3],
            }],
            members: vec![1, 2, 3, 4],
        }),
        membership_at: at(4, 1, 9),
    };
    vec![
        ("hello", greeting.encode_to_vec()),
        (
            "append",
            message(FrameBody::Append(proto::Append {
                vote: vote(5, 2, true),
                after: at(4, 1, 9),
                committed: at(4, 1, 8),
                entries: vec![b"\x01ab".as_slice().into(), b"\x01c".as_slice().into()],
            })),
        ),
        ("append-taken", message(taken(1, None, None))),
        ("append-taken-up-to", message(taken(2, at(5, 2, 10), None))),
        ("append-conflict", message(taken(3, None, None))),
        (
            "append-higher-vote",
            message(taken(4, None, vote(6, 3, false))),
        ),
        (
            "vote",
            message(FrameBody::Vote(proto::Vote {
                vote: vote(6, 3, false),
                last: at(5, 2, 10),
            })),
        ),
        (
            "vote-answer",
            message(FrameBody::VoteAnswer(proto::VoteAnswer {
                vote: vote(6, 3, false),
                granted: true,
                last: at(5, 2, 10),
            })),
        ),
        (
            "elect",
            message(FrameBody::Elect(proto::Elect {
                vote: vote(5, 2, true),
                last: at(5, 2, 10),
            })),
        ),
        (
            "elect-answer",
            message(FrameBody::ElectAnswer(proto::ElectAnswer {})),
        ),
        (
            "refused",
            message(FrameBody::Refused(proto::Refused {
                why: "no".to_owned(),
                behind: false,
            })),
        ),
        (
            "snapshot-begin",
            part(SnapshotPart::Begin(proto::SnapshotBegin {
                vote: vote(5, 2, true),
                cover: Some(cover),
                id: "7-5.2.40-1".to_owned(),
            })),
        ),
        (
            "snapshot-history",
            part(SnapshotPart::History(b"abc".as_slice().into())),
        ),
        (
            "snapshot-history-end",
            part(SnapshotPart::HistoryEnd(proto::SnapshotHistoryEnd {
                kept: true,
            })),
        ),
        (
            "snapshot-chunks",
            part(SnapshotPart::Chunks(proto::SnapshotChunks {
                first: 16,
                chunks: vec![b"ab".as_slice().into(), b"c".as_slice().into()],
            })),
        ),
        (
            "snapshot-end",
            part(SnapshotPart::End(proto::SnapshotEnd {
                chunks: 18,
                crc: 0x0403_0201,
            })),
        ),
        (
            "snapshot-wanted",
            answer(SnapshotAnswer::Wanted(proto::SnapshotWanted {
                history_upto: at(4, 1, 9),
            })),
        ),
        ("snapshot-taken", answer(SnapshotAnswer::TakenBytes(300))),
        (
            "snapshot-installed",
            answer(SnapshotAnswer::Installed(proto::SnapshotInstalled {
                vote: vote(5, 2, true),
            })),
        ),
        (
            "snapshot-refused",
            answer(SnapshotAnswer::Refused(proto::Refused {
                why: "no".to_owned(),
                behind: false,
            })),
        ),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn what_nodes_say_to_one_another_has_these_bytes_for_ever() {
    let kept = include_str!("fixtures/frames.txt");
    let now: String = all()
        .iter()
        .map(|(name, bytes)| format!("{name} {}\n", hex(bytes)))
        .collect();
    assert_eq!(now, kept, "formats are added to, never edited");
}

#[test]
fn the_kept_bytes_are_understood() {
    for (name, bytes) in all() {
        let again = if name.starts_with("snapshot") {
            let part = proto::SnapshotPart::decode(bytes.as_slice());
            let answer = proto::SnapshotAnswer::decode(bytes.as_slice());
            part.is_ok_and(|p| p.part.is_some() && p.encode_to_vec() == bytes)
                || answer.is_ok_and(|a| a.answer.is_some() && a.encode_to_vec() == bytes)
        } else {
            let message = proto::PeerMessage::decode(bytes.as_slice());
            message.is_ok_and(|m| m.encode_to_vec() == bytes)
        };
        assert!(again, "{name}");
    }
}
