//! Verbs about the machines of a cluster and the layout of their shards.

use clap::{Args, Subcommand};

/// Verbs of `holdfast node`.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeVerb {
    /// All nodes and how they are.
    List,
    /// Whether reads and writes go on while a node is stopped. Exit code 0: yes; 3: reads do; 4: no.
    SafeToStop {
        /// Name or number.
        node: String,
    },
    /// Move everything off a node: shards and votes. It can be removed once `node list` shows it as drained. Refused where
    /// the promise would not hold without it.
    Drain {
        /// Name or number.
        node: String,
        /// Let it stay after all.
        #[arg(long, conflicts_with_all = ["plan", "accept_loss_of"])]
        cancel: bool,
        /// Say what it would move, and do nothing.
        #[arg(long)]
        plan: bool,
        /// Give up what cannot be kept without it: a scenario of the promise such as zone:1, or metadata. Once for each.
        #[arg(long, value_name = "WHAT")]
        accept_loss_of: Vec<String>,
    },
    /// Forget a drained node for good: its certificate is refused from then on.
    Remove {
        /// Name or number.
        node: String,
        /// It is gone for good without having been drained: rebuild what it held from what is left.
        #[arg(long)]
        lost: bool,
        /// Say what it would move, and do nothing.
        #[arg(long)]
        plan: bool,
        /// Give up what cannot be kept without it: a scenario of the promise such as zone:1, metadata, or data (what can
        /// be read from nowhere else). Once for each.
        #[arg(long, value_name = "WHAT")]
        accept_loss_of: Vec<String>,
    },
    /// Declare a node lost in whose place another has joined; what it held is rebuilt there and elsewhere.
    Replace {
        /// Name or number of the lost one.
        node: String,
        /// Name or number of the one that has joined.
        #[arg(long, value_name = "NODE")]
        with: String,
        /// Say what it would move, and do nothing.
        #[arg(long)]
        plan: bool,
        /// As of `remove`.
        #[arg(long, value_name = "WHAT")]
        accept_loss_of: Vec<String>,
    },
}

/// Verbs of `holdfast layout`.
#[derive(Debug, Subcommand)]
pub(crate) enum LayoutVerb {
    /// The promise with its proof, what moves, and what each region, zone, node and backend holds.
    Show,
    /// The last changes of the layout: when, what was asked for, what changed.
    History,
}

/// Verbs of `holdfast policy`.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyVerb {
    /// What the store promises, with its proof, and whether it holds now.
    List,
    /// What another promise would take: whether it can be kept and proven on the nodes there are, what would move, and
    /// which schemes keep it. Changes nothing. Exit code 6 where it cannot be kept.
    Plan(PolicyArgs),
    /// Choose the promise, and move what has to move for it.
    Create(PolicyArgs),
}

/// A promise.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct PolicyArgs {
    /// What must survive, whatever nodes come and go: scenarios such as zone:1+node:1, joined by commas.
    #[arg(long, value_name = "PROMISE")]
    pub(crate) survive: Option<String>,
    /// The strongest of the usual promises that the nodes can keep, as they come and go: what a store begins with.
    #[arg(long)]
    pub(crate) follow_nodes: bool,
}

/// Verbs of `holdfast rebalance`.
#[derive(Debug, Subcommand)]
pub(crate) enum RebalanceVerb {
    /// What it would take to balance the layout as backends are now. Changes nothing.
    Plan,
    /// Carry out a plan; a pause ends. Refused with exit code 9 once the layout has changed.
    Apply {
        /// Its name, as `rebalance plan` prints it.
        plan: String,
    },
    /// What moves, with rate and time to go.
    Status,
    /// Hold moves of healthy shards, and the planning of new ones, until resumed. What is lost is repaired all the same.
    Pause,
    /// Let moves and planning go on.
    Resume,
    /// Take moves back that are under way. Nothing new is planned until `rebalance resume`.
    Undo,
}
