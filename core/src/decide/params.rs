//! Reconciler: PostgreSQL's configuration files are those of the generation in force.

use crate::action::{Action, PostgresAction};
use crate::reason::Reason;
use crate::view::View;

pub(crate) fn order(view: &View<'_>) -> Option<(Action, Reason)> {
    let generation = view.config().parameters_generation;
    if view.phase().is_none() || view.state.memory.configured == generation {
        return None;
    }
    Some((Action::Postgres(PostgresAction::Configure { generation }), Reason::ParametersChanged))
}
