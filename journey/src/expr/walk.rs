//! `all`, `any`, `exists_one`, `map` and `filter`: one element after the other, each absorbing what is unknown as `&&` and
//! `||` do. Knows nothing of how the body is evaluated.

use super::Miss;
use super::eval::{Eval, Out, truth, weight, worse};
use super::operators;
use super::tree::{Macro, MacroKind};
use crate::value::Value;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// The longest list that a macro may walk.
pub const MAX_LIST: usize = 1_000;

impl<'a> Eval<'a> {
    pub(super) fn walk(&mut self, call: &'a Macro) -> Out<'a> {
        let range = self.eval(&call.range)?;
        let elements = elements(range)?;
        if elements.len() > MAX_LIST {
            return Err(Miss::Error(format!(
                "a list of {} elements is walked; at most {MAX_LIST} can be",
                elements.len()
            )));
        }
        let mut result = Collected::default();
        for element in elements {
            self.locals.push(element);
            let stop = self.step(call, &mut result);
            self.locals.pop();
            if stop? {
                break;
            }
        }
        result.finish(call.kind)
    }

    /// One element; `true` when the result is decided.
    fn step(&mut self, call: &'a Macro, result: &mut Collected) -> Result<bool, Miss> {
        let wanted = match &call.filter {
            Some(filter) => self.condition(filter, "map"),
            None => Ok(true),
        };
        match (call.kind, wanted) {
            (_, Err(miss)) => result.miss(miss)?,
            (_, Ok(false)) => {}
            (MacroKind::Map, Ok(true)) => match self.eval(&call.body) {
                Ok(value) => {
                    self.charge(weight(&value))?;
                    result.list.push(value.into_owned());
                }
                Err(miss) => result.miss(miss)?,
            },
            (MacroKind::Filter, Ok(true)) => match self.condition(&call.body, "filter") {
                Ok(true) => {
                    if let Some(element) = self.locals.last() {
                        let element = element.clone();
                        self.charge(weight(&element))?;
                        result.list.push(element.into_owned());
                    }
                }
                Ok(false) => {}
                Err(miss) => result.miss(miss)?,
            },
            (MacroKind::All, Ok(true)) => match self.condition(&call.body, "all") {
                Ok(false) => {
                    result.decided = true;
                    return Ok(true);
                }
                Ok(true) => {}
                Err(miss) => result.miss(miss)?,
            },
            (MacroKind::Exists, Ok(true)) => match self.condition(&call.body, "any") {
                Ok(true) => {
                    result.decided = true;
                    return Ok(true);
                }
                Ok(false) => {}
                Err(miss) => result.miss(miss)?,
            },
            (MacroKind::ExistsOne, Ok(true)) => match self.condition(&call.body, "exists_one") {
                Ok(held) => result.count += usize::from(held),
                Err(miss) => result.miss(miss)?,
            },
        }
        Ok(false)
    }
}

/// What a macro has gathered.
#[derive(Default)]
struct Collected {
    list: Vec<Value>,
    count: usize,
    decided: bool,
    miss: Option<Miss>,
    /// Paths already named, so that a thousand elements do not name one path a thousand times.
    named: BTreeSet<String>,
}

impl Collected {
    /// Notes a miss and goes on: a later element may decide. Running out of budget ends the walk at once.
    fn miss(&mut self, miss: Miss) -> Result<(), Miss> {
        match miss {
            Miss::Unknown(paths) => self.named.extend(paths),
            // a spent budget fails again at the very next node, so going on costs no more than the list is long
            error => self.miss = Some(worse(self.miss.take(), error)),
        }
        Ok(())
    }

    fn finish<'a>(self, kind: MacroKind) -> Out<'a> {
        if !self.decided {
            if !self.named.is_empty() {
                return Err(Miss::Unknown(self.named.into_iter().collect()));
            }
            if let Some(miss) = self.miss {
                return Err(miss);
            }
        }
        Ok(match kind {
            MacroKind::All => truth(!self.decided),
            MacroKind::Exists => truth(self.decided),
            MacroKind::ExistsOne => truth(self.count == 1),
            MacroKind::Map | MacroKind::Filter => Cow::Owned(Value::List(self.list)),
        })
    }
}

/// What a macro walks: the elements of a list, the keys of a map in their order.
fn elements(range: Cow<'_, Value>) -> Result<Vec<Cow<'_, Value>>, Miss> {
    Ok(match range {
        Cow::Borrowed(Value::List(list)) => list.iter().map(Cow::Borrowed).collect(),
        Cow::Owned(Value::List(list)) => list.into_iter().map(Cow::Owned).collect(),
        Cow::Borrowed(Value::Map(map)) => map
            .keys()
            .map(|k| Cow::Owned(Value::String(k.clone())))
            .collect(),
        Cow::Owned(Value::Map(map)) => map
            .into_keys()
            .map(|k| Cow::Owned(Value::String(k)))
            .collect(),
        other => {
            return Err(Miss::Error(format!(
                "a list or a map can be walked, found {}",
                operators::kind(&other)
            )));
        }
    })
}
