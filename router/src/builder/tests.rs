//! Which node is the primary; what a builder shows.

use std::time::Instant;

use super::*;

fn primary(timeline: u32) -> Sample {
    Sample {
        timeline: Some(timeline),
        ..Sample::bare(Role::Primary, Instant::now())
    }
}

#[test]
fn the_primary_among_nodes_is_the_one_on_the_highest_timeline() {
    let (old, new) = (primary(1), primary(2));
    let replica = Sample::bare(Role::Replica, Instant::now());
    let one = [("a", Some(&replica)), ("b", Some(&old)), ("c", Some(&new))];
    assert_eq!(sole_primary(&one), Ok(2));
    let none = [("a", Some(&replica)), ("b", None)];
    assert_eq!(sole_primary(&none), Err(NotOne::None));
    let two = [("a", Some(&new)), ("b", Some(&old)), ("c", Some(&new))];
    let both = NotOne::Two("a".to_owned(), "c".to_owned());
    assert_eq!(sole_primary(&two), Err(both));
}

#[test]
fn a_builder_shows_no_password() {
    let builder = Database::builder()
        .primary("postgresql://app:hush@db1/shop")
        .replica("postgresql://app:hu/sh@db2/shop")
        .nodes(["postgresql://app:hush@db3/shop"]);
    let shown = format!("{builder:?}");
    assert!(shown.contains("db1") && !shown.contains("hush"), "{shown}");
    assert!(!shown.contains("sh@"), "{shown}");
}
