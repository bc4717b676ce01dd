//! What was found in a text so far, and how findings add up.

use super::names::Class;
use super::{Decision, PinTo, Reason, Target};

/// The finding that binds most, with what the others add to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finding {
    pub(super) target: Target,
    pub(super) reason: Reason,
    /// Something in it needs the primary, whatever `target` says.
    primary: bool,
    /// A later read of the same context must see its effect.
    pub(super) sticks: bool,
    culprit: (usize, usize),
}

impl Finding {
    pub(super) const EMPTY: Self = Self::new(Target::Replica, Reason::Empty);
    pub(super) const READ: Self = Self::new(Target::Replica, Reason::Read);

    pub(super) const fn new(target: Target, reason: Reason) -> Self {
        Self {
            target,
            reason,
            primary: matches!(target, Target::Primary | Target::Pin(PinTo::Primary)),
            sticks: matches!(
                reason,
                Reason::Write
                    | Reason::Lock
                    | Reason::WritingFunction
                    | Reason::UnknownFunction
                    | Reason::UnknownOperator
            ),
            culprit: (0, 0),
        }
    }

    pub(super) const fn primary(reason: Reason) -> Self {
        Self::new(Target::Primary, reason)
    }

    pub(super) const fn pin(to: PinTo, reason: Reason) -> Self {
        Self::new(Target::Pin(to), reason)
    }

    /// What a call, or a relation, of this class means; `None` for one that any node can answer.
    pub(super) const fn of(class: Class) -> Option<Self> {
        Some(match class {
            Class::Read | Class::Grammar => return None,
            Class::Write => Self::primary(Reason::WritingFunction),
            Class::Node => Self::primary(Reason::NodeLocal),
            Class::PinAny => Self::pin(PinTo::Any, Reason::SessionState),
            Class::PinPrimary => Self::pin(PinTo::Primary, Reason::SessionState),
            Class::PinCurrent => Self::pin(PinTo::Current, Reason::SessionState),
            Class::Set => Self::new(Target::All, Reason::Setting),
        })
    }

    /// With the part of the text that shows it.
    pub(super) const fn at(self, culprit: (usize, usize)) -> Self {
        Self { culprit, ..self }
    }

    pub(super) const fn sticking(self, sticks: bool) -> Self {
        Self { sticks, ..self }
    }

    /// Whether the finding is that nothing is known, or that a node's own facts are asked for: the author of the
    /// statement may know better, and say so in a comment.
    const fn is_soft(&self) -> bool {
        matches!(
            self.reason,
            Reason::UnknownFunction | Reason::UnknownOperator | Reason::NodeLocal | Reason::ListedRelation
        )
    }

    /// How much it binds.
    const fn rank(&self) -> u8 {
        match self.target {
            Target::Replica => matches!(self.reason, Reason::Read | Reason::Plan) as u8,
            Target::Primary if self.is_soft() => 2,
            Target::Primary => 3,
            Target::All => 4,
            Target::Pin(PinTo::Any) => 5,
            Target::Pin(PinTo::Primary) => 6,
            Target::Pin(PinTo::Current) => 7,
        }
    }

    /// Adds another finding of the same statement.
    pub(super) fn add(&mut self, other: Self) {
        let (primary, sticks) = (self.primary || other.primary, self.sticks || other.sticks);
        if other.rank() > self.rank() {
            *self = other;
        }
        (self.primary, self.sticks) = (primary, sticks);
        // What lives on one connection, and needs the primary too, needs a connection of the primary.
        if primary && matches!(self.target, Target::All | Target::Pin(PinTo::Any)) {
            self.target = Target::Pin(PinTo::Primary);
        }
    }

    /// Adds the finding of the next statement of the text.
    pub(super) fn add_statement(&mut self, next: Self) {
        let mixed = self.reason != Reason::Empty && (self.target == Target::All) != (next.target == Target::All);
        self.add(next);
        // A setting followed by something else: both belong on one connection.
        if mixed && self.target == Target::All {
            self.target = Target::Pin(PinTo::Any);
        }
    }

    /// Whether any node could do it.
    pub(super) fn is_read(&self) -> bool {
        self.target == Target::Replica
    }

    /// The same, when the statement is planned but not run.
    pub(super) fn planned(self) -> Self {
        match self.target {
            Target::Pin(_) => self,
            Target::Primary if self.reason == Reason::UnknownStatement => self,
            _ => Self::new(Target::Replica, Reason::Plan),
        }
    }

    /// What a comment `pgdock: primary` makes of it.
    pub(super) fn hinted_primary(mut self) -> Self {
        match self.target {
            Target::Replica => Self::primary(Reason::Hint),
            Target::Pin(PinTo::Any) => {
                self.target = Target::Pin(PinTo::Primary);
                self
            }
            _ => self,
        }
    }

    /// What a comment `pgdock: replica` makes of it: it helps where nothing is known, never against what is known.
    pub(super) fn hinted_replica(self) -> Self {
        if self.rank() == 2 { Self::new(Target::Replica, Reason::Hint) } else { self }
    }

    pub(super) fn decision(self) -> Decision {
        Decision { target: self.target, reason: self.reason, sticks: self.sticks, culprit: self.culprit }
    }
}
