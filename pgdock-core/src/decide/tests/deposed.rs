use super::support::*;
use crate::Term;
use crate::decide::decide;

#[test]
fn a_primary_that_reads_of_another_leader_fences_itself() {
    let mut view = leader();
    document(&mut view).leader = Some(name("n2"));
    document(&mut view).term = Term(4);
    assert!(fences(&decide(&view)));
}

#[test]
fn so_it_does_where_its_right_is_of_an_earlier_term() {
    let mut view = leader();
    document(&mut view).term = Term(4);
    assert!(fences(&decide(&view)));
}
