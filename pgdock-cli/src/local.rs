//! Agents as processes on this machine, as the executor `local` has them.

mod bring_up;
mod launch;
mod process;
mod take_down;

pub(crate) use bring_up::{bring_up, first_node, settled};
pub(crate) use launch::launch;
pub(crate) use process::{
    agent_pid, agent_pids, agents_of, await_inherited, helpers, is_up, kill_node, postmaster_at, postmaster_pid,
};
pub(crate) use take_down::{hand_over, stop_at, take_down, take_down_by_force};
