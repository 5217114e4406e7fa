//! Holds `docs/runbook.md` against what the code says: every reason, event and error of a session has its row.

use std::sync::Arc;
use std::time::Duration;

use crate::events::EventKind;
use crate::floor::TokenRefusal;
use crate::lsn::Lsn;
use crate::orders::Reads;
use crate::plan::{NoReplica, Refusal};
use crate::request::{Consistency, WaitPolicy};
use crate::view::Reason;

const PAGE: &str = include_str!("../../docs/runbook.md");

fn has_row(begins: &str) -> bool {
    PAGE.lines()
        .any(|line| line.starts_with(&format!("| {begins} |")))
}

#[test]
fn every_reason_stands_in_the_runbook_in_its_own_words() {
    for reason in Reason::ALL {
        assert!(has_row(&reason.to_string()), "no row for {reason:?}");
    }
}

#[test]
fn every_event_stands_in_the_runbook() {
    let node: Arc<str> = "n".into();
    let all = [
        EventKind::CameBack {
            node: Arc::clone(&node),
        },
        EventKind::WentAway {
            node: Arc::clone(&node),
            why: String::new(),
        },
        EventKind::Promoted {
            node: Arc::clone(&node),
        },
        EventKind::Demoted {
            node: Arc::clone(&node),
        },
        EventKind::WriteRefused {
            node: Arc::clone(&node),
        },
        EventKind::Drained {
            node: Arc::clone(&node),
        },
        EventKind::Ejected {
            node: Arc::clone(&node),
            time: Duration::ZERO,
        },
        EventKind::Resumed { node },
        EventKind::Reads(Reads::Routed),
        EventKind::WritesSuspended {
            limit: Duration::ZERO,
        },
        EventKind::WritesResumed,
    ];
    for event in all {
        // A new kind of event has a name there, and belongs into the list above.
        let name = event.name();
        assert!(has_row(&format!("`{name}`")), "no row for {name}");
    }
}

#[test]
fn every_refusal_of_a_session_stands_in_the_runbook_in_its_own_words() {
    let tokens = [
        TokenRefusal::OfAnotherCluster { token: 1, ours: 2 },
        TokenRefusal::CannotTell {
            token: 1,
            ours: None,
        },
        TokenRefusal::LostInFailover {
            token: 1,
            position: Lsn(2),
            ours: 2,
            shared_up_to: Some(Lsn(1)),
        },
        TokenRefusal::WriteLost {
            token: Lsn(2),
            primary: Lsn(1),
        },
    ];
    let said = tokens
        .into_iter()
        .map(|refusal| Refusal::Token(refusal).to_string());
    let forbidden = NoReplica {
        consistency: Consistency::Strong,
        needed: None,
        replicas: Vec::new(),
        wait: WaitPolicy::Never,
    };
    let others = [
        Refusal::NoPrimary(Vec::new()),
        Refusal::PrimaryForbidden(forbidden),
    ];
    let said = said.chain(others.iter().map(ToString::to_string));
    let rows: Vec<&str> = PAGE
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
        .collect();
    for text in said {
        let met = rows.iter().any(|row| row.len() > 12 && text.contains(row));
        assert!(met, "no row for: {text}");
    }
}
