//! The way of signals from this client to the nodes: a stream to each of them, and one book of what is under way, so that
//! the order of a customer's signals is kept whichever node they go to.
//! Knows nothing of journeys; what a receipt says is the caller's business.

pub(crate) mod book;
mod links;
mod routes;

use crate::error::Error;
use crate::nodes::{Address, Nodes};
use crate::topology::View;
use book::{Book, Submit, Trouble};
use links::{Event, Links};
use routes::{LinkId, Routes};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// A message of answers may be large: the window's worth of receipts with many parts.
pub(crate) const DECODE_MAX: usize = 64 << 20;

/// How often it is looked whether anybody still waits, once all clients are gone.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Runs until all clients are gone and all signals answered.
pub(crate) async fn run(nodes: Arc<Nodes>, mut submits: mpsc::Receiver<Submit>, trouble: Trouble) {
    let mut book = Book::new(trouble);
    let mut links = Links::default();
    let mut views = nodes.views();
    let mut view: Arc<View> = views.borrow_and_update().clone();
    let mut wanted: BTreeSet<Address> = nodes.all();
    let mut usable: Vec<LinkId> = Vec::new();
    let mut open = true;
    let mut batch = Vec::new();
    while open || !book.is_idle() {
        let now = Instant::now();
        book.tick(now);
        let needed = book.wants_connection();
        if needed {
            links.want(&nodes, &wanted, now);
        }
        for link in &usable {
            while let Some(request) = book.next(*link, now) {
                links.send(*link, request);
            }
        }
        let room = if open { book.room() } else { 0 };
        // once all clients are gone nobody tells of a caller that goes too: look now and then
        let look = (!open).then(|| now + LOOK_EVERY);
        let reopen = links.wake(&wanted).filter(|_| needed);
        let wake = book.wake().into_iter().chain(look).chain(reopen).min();
        let mut changed = false;
        tokio::select! {
            biased;
            (link, event) = links.next() => match event {
                Event::Answers(answers) => {
                    let now = Instant::now();
                    for ack in answers.acks {
                        book.answer(link, ack.number, ack.result.and_then(|r| r.result), now);
                    }
                }
                Event::Opened => {
                    book.trouble.set(None);
                    changed = true;
                }
                Event::Failed(error) => down(&mut book, &links, Some(error)),
                Event::Broke(error) => {
                    changed = true;
                    book.broke(link);
                    down(&mut book, &links, error);
                }
            },
            count = submits.recv_many(&mut batch, room.max(1)), if room > 0 => {
                open = count > 0;
                for submit in batch.drain(..) {
                    book.add(submit);
                }
            }
            told = views.changed(), if views.has_changed().is_ok() => if told.is_ok() {
                view = views.borrow_and_update().clone();
                changed = true;
            },
            () = sleep_until(wake), if wake.is_some() => {}
        }
        if changed {
            let_go(&nodes, &view, &mut links, &book);
            wanted = addresses(&nodes, &view, &links);
            let routes = links.open();
            usable = routes.keys().copied().collect();
            book.set_routes(Routes::new(&view, &routes));
        }
    }
}

/// A link was lost, or could not be made.
fn down(book: &mut Book, links: &Links, error: Option<Error>) {
    let Some(error) = error else { return };
    if links.all_hopeless() {
        book.give_up(&error);
    }
    if !links.any_open() {
        book.trouble.set(Some(error));
    }
}

/// To whom a link is wanted: those that own something; as long as none is open, everybody.
fn addresses(nodes: &Nodes, view: &View, links: &Links) -> BTreeSet<Address> {
    let owning: BTreeSet<Address> = view.owning().into_iter().cloned().collect();
    if owning.is_empty() || !links.any_open() {
        return nodes.all();
    }
    owning
}

/// Closes links that are not needed once one to an owner is open: to nodes that are gone or own nothing, to a seed that
/// is a node under another name. One with signals under way stays until they are answered.
fn let_go(nodes: &Nodes, view: &View, links: &mut Links, book: &Book) {
    let owning = view.owning();
    let straight = links.open().values().any(|a| owning.contains(a));
    let all = nodes.all();
    links.keep(|id, address| {
        let needed = if straight {
            owning.contains(address)
        } else {
            all.contains(address)
        };
        needed || !book.is_calm(id)
    });
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
