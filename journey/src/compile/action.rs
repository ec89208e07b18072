//! Actions: what they need, and their texts made into templates.

use super::{Builder, MAX_LISTED};
use crate::compiled::{Action, Body};
use crate::definition::{self, EndpointBody, Place, Prose};
use crate::document::{Kind, Node};
use crate::problem::nearest;
use crate::template::Template;
use crate::value::Value;
use std::collections::BTreeMap;

impl Builder<'_> {
    /// The actions of a list; `place` is the place of the list in the compiled journey.
    pub(super) fn actions(
        &mut self,
        place: &str,
        list: Option<&Vec<definition::Action>>,
    ) -> Option<Vec<Action>> {
        let list = super::listed(list);
        if let Some(one_too_many) = list.get(MAX_LISTED) {
            self.at_most(
                list.len(),
                MAX_LISTED,
                "actions in one list",
                &one_too_many.place,
            );
        }
        let actions: Vec<_> = list
            .iter()
            .enumerate()
            .map(|(i, action)| self.action(format!("{place}/{i}"), action))
            .collect();
        actions.into_iter().collect()
    }

    fn action(&mut self, place: String, action: &definition::Action) -> Option<Action> {
        let kind = action.kind.clone();
        let entries = match &action.body.node.kind {
            Kind::Map(entries) => {
                let mut seen = BTreeMap::new();
                for (key, node) in entries {
                    let at = below(&action.body.place, &key.name, node);
                    if seen.insert(key.name.as_str(), (node, at)).is_some() {
                        let place = Place {
                            line: key.line,
                            column: key.column,
                            ..action.body.place.clone()
                        };
                        self.problems.error(
                            &place,
                            format!("the key `{}` stands here a second time", key.name),
                        );
                    }
                }
                seen
            }
            Kind::Null => BTreeMap::new(),
            // `log: "a text"`: the whole body is one value
            _ if kind == "webhook" => {
                self.problems.error_with_help(
                    &action.body.place,
                    format!("a webhook is a map, found {}", action.body.node.describe()),
                    "write `webhook: { to: endpoint, body: { … } }`",
                );
                return None;
            }
            _ => {
                let body = self.body(&action.body)?;
                return Some(Action {
                    place,
                    kind,
                    to: None,
                    body,
                    awaited: None,
                });
            }
        };
        let awaited = match entries.get("await") {
            Some((node, at)) => self.awaited(&kind, node, at)?,
            None => None,
        };
        if kind == "webhook" {
            return self.webhook(place, action, &entries, awaited);
        }
        let to = match entries.get("to") {
            Some((node, at)) => Some(self.text(node, at, "`to`")?),
            None => None,
        };
        let mut rest = BTreeMap::new();
        let mut whole = true;
        for (name, (node, at)) in entries {
            if name == "to" || name == "await" {
                continue;
            }
            match self.body(&EndpointBody {
                node: node.clone(),
                place: at,
            }) {
                Some(body) => {
                    rest.insert(name.to_owned(), body);
                }
                None => whole = false,
            }
        }
        whole.then(|| Action {
            place,
            kind,
            to,
            body: Body::Map(rest),
            awaited,
        })
    }

    /// A webhook sends the value of `body` to an endpoint.
    fn webhook(
        &mut self,
        place: String,
        action: &definition::Action,
        entries: &BTreeMap<&str, (&Node, Place)>,
        awaited: Option<String>,
    ) -> Option<Action> {
        const KEYS: [&str; 3] = ["to", "body", "await"];
        for (name, (_, at)) in entries.iter().filter(|(name, _)| !KEYS.contains(name)) {
            let help = nearest(name, KEYS).map_or_else(
                || format!("its keys are {}", KEYS.join(", ")),
                |k| format!("did you mean `{k}`?"),
            );
            self.problems.error_with_help(
                at,
                format!("`{}` is no key of a webhook", crate::problem::short(name)),
                help,
            );
        }
        let body = match entries.get("body") {
            Some((node, at)) => self.body(&EndpointBody {
                node: (*node).clone(),
                place: at.clone(),
            }),
            None => Some(Body::Map(BTreeMap::new())),
        };
        let Some((node, at)) = entries.get("to") else {
            self.problems.error(
                &action.place,
                "a webhook needs `to`, the name of an endpoint",
            );
            return None;
        };
        let to = self.text(node, at, "`to`")?;
        if !to.is_plain() {
            self.problems.error(at, "the endpoint of a webhook must be written out, so that it can be checked; expressions go into `body`");
            return None;
        }
        if let Some(endpoints) = &self.known.endpoints
            && !endpoints.contains(&to.source)
        {
            let help = match nearest(&to.source, endpoints.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!(
                    "make it first: `sojourn endpoint put {} --url https://…`",
                    to.source
                ),
            };
            self.problems.error_with_help(
                at,
                format!("there is no endpoint `{}`", to.source),
                help,
            );
        }
        Some(Action {
            place,
            kind: "webhook".to_owned(),
            to: Some(to),
            body: body?,
            awaited,
        })
    }

    /// The name under which the result becomes a fact; `true` takes the endpoint's or the kind's.
    fn awaited(&mut self, kind: &str, node: &Node, at: &Place) -> Option<Option<String>> {
        match &node.kind {
            Kind::Bool(false) | Kind::Null => Some(None),
            Kind::Bool(true) => Some(Some(kind.to_owned())),
            Kind::Text(name) if definition::is_slug(name) => Some(Some(name.clone())),
            _ => {
                self.problems.error(at, "`await` takes true, or the name under which the result becomes the fact `action.<name>.status`");
                None
            }
        }
    }

    fn text(&mut self, node: &Node, at: &Place, what: &str) -> Option<Template> {
        let text = match &node.kind {
            Kind::Text(text) => text.clone(),
            Kind::Int(_) | Kind::Double(_) | Kind::Bool(_) => {
                node.plain.clone().unwrap_or_default()
            }
            _ => {
                self.problems
                    .error(at, format!("{what} is a text, found {}", node.describe()));
                return None;
            }
        };
        self.template(&Prose {
            text,
            place: at.clone(),
        })
    }

    fn body(&mut self, body: &EndpointBody) -> Option<Body> {
        let plain = |value| Some(Body::Plain(value));
        match &body.node.kind {
            Kind::Null => plain(Value::Null),
            Kind::Bool(b) => plain(Value::Bool(*b)),
            Kind::Int(i) => plain(Value::Int(*i)),
            Kind::Double(d) => plain(Value::Double(*d)),
            Kind::TooLarge => {
                self.problems.error(
                    &body.place,
                    "the whole number is beyond 64 bits; write it as a text",
                );
                None
            }
            Kind::Text(text) => {
                let template = self.template(&Prose {
                    text: text.clone(),
                    place: body.place.clone(),
                })?;
                Some(if template.is_plain() {
                    Body::Plain(Value::String(template.source))
                } else {
                    Body::Text(template)
                })
            }
            Kind::List(list) => {
                let bodies: Vec<_> = list
                    .iter()
                    .enumerate()
                    .map(|(i, node)| {
                        let place = Place::of(node, &format!("{}[{i}]", body.place.path));
                        self.body(&EndpointBody {
                            node: node.clone(),
                            place,
                        })
                    })
                    .collect();
                bodies.into_iter().collect::<Option<_>>().map(Body::List)
            }
            Kind::Map(entries) => {
                let mut map = BTreeMap::new();
                let mut whole = true;
                for (key, node) in entries {
                    let place = below(&body.place, &key.name, node);
                    match self.body(&EndpointBody {
                        node: node.clone(),
                        place,
                    }) {
                        Some(value) => {
                            if map.insert(key.name.clone(), value).is_none() {
                                continue;
                            }
                            let place = Place {
                                line: key.line,
                                column: key.column,
                                ..body.place.clone()
                            };
                            self.problems.error(
                                &place,
                                format!(
                                    "the key `{}` stands here a second time",
                                    crate::problem::short(&key.name)
                                ),
                            );
                        }
                        None => whole = false,
                    }
                }
                whole.then_some(Body::Map(map))
            }
        }
    }
}

fn below(place: &Place, key: &str, node: &Node) -> Place {
    Place::of(
        node,
        &format!("{}.{}", place.path, crate::problem::short(key)),
    )
}
