//! What monitors say at a decision point. In: the rows of a monitor's view. Out: why it fires, or nothing.

use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMillisecondType};
use freshet_core::{DriftMethod, DriftSpec, Epoch, Error, Op, Plan, Reader, Result, RetrainingDef, RetrainingTrigger};

/// Restored state is seen within a step of the workers; this long means never.
const VISIBLE_MAX: Duration = Duration::from_secs(10);

/// For each trigger of a job, in its order: why its monitor fires at this point. Only what lies below the point is read.
pub fn alarms(plan: &Plan, job: &RetrainingDef, point: Epoch, reader: &dyn Reader) -> Result<Vec<Option<String>>> {
    let alarm = |trigger: &RetrainingTrigger| match trigger {
        RetrainingTrigger::Every { .. } => Ok(None),
        RetrainingTrigger::Drift { monitor } => {
            wait_for(reader, monitor, point)?;
            let snapshot = reader.snapshot(&[monitor], Some(Epoch(point.0 - 1)))?;
            let mut fired = Vec::new();
            for rows in &snapshot.views[0] {
                fired.extend(conditions(spec(plan, monitor), rows, point)?);
            }
            Ok((!fired.is_empty()).then(|| format!("drift {monitor}: {}", fired.join(", "))))
        }
    };
    job.triggers.iter().map(alarm).collect()
}

/// After a restore, state that is complete may take a moment until readers see it. Errors: Internal.
fn wait_for(reader: &dyn Reader, monitor: &str, point: Epoch) -> Result<()> {
    let deadline = Instant::now() + VISIBLE_MAX;
    while reader.frontier(&[monitor])? < point {
        if Instant::now() > deadline {
            return Err(Error::internal(format!("monitor {monitor} is not complete below {point}, where a decision is taken")));
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    Ok(())
}

fn spec<'a>(plan: &'a Plan, monitor: &str) -> Option<&'a DriftSpec> {
    let view = plan.view(monitor)?;
    match &plan.node(view.node).op {
        Op::Drift { spec } => Some(spec),
        _ => None,
    }
}

/// `psi(p_late) = 0.1234 > 0.1, 3 evaluations` for each condition that has fired at the point, in the monitor's order.
fn conditions(spec: Option<&DriftSpec>, rows: &RecordBatch, point: Epoch) -> Result<Vec<String>> {
    let column = |name: &str| rows.column_by_name(name).ok_or_else(|| Error::internal(format!("a monitor has no column {name}")));
    let at = column("evaluated_at")?.as_primitive::<TimestampMillisecondType>();
    let (names, methods) = (column("column_name")?.as_string::<i32>(), column("method")?.as_string::<i32>());
    let (values, thresholds) = (column("value")?.as_primitive::<Float64Type>(), column("threshold")?.as_primitive::<Float64Type>());
    let (exceeded, drifted) = (column("exceeded")?.as_primitive::<Int64Type>(), column("drifted")?.as_boolean());
    let mut fired: Vec<((usize, usize), String)> = Vec::new();
    for row in 0..rows.num_rows() {
        if u64::try_from(at.value(row)) != Ok(point.0) || !drifted.value(row) {
            continue;
        }
        let (name, method) = (names.value(row), methods.value(row));
        let condition = spec.and_then(|spec| {
            let of = |condition: &&freshet_core::DriftCondition| spec.names[condition.column] == name && condition.method.sql() == method;
            spec.conditions.iter().find(of)
        });
        let sign = if condition.is_some_and(|condition| condition.inclusive) { ">=" } else { ">" };
        let count = exceeded.value(row);
        let evaluations = if count == 1 { String::new() } else { format!(", {count} evaluations") };
        let text = format!("{method}({name}) = {:.4} {sign} {}{evaluations}", values.value(row), thresholds.value(row));
        let place = spec.map_or((0, 0), |spec| {
            let column = spec.names.iter().position(|known| known == name).unwrap_or(usize::MAX);
            (column, spec.methods.iter().position(|known: &DriftMethod| known.sql() == method).unwrap_or(usize::MAX))
        });
        fired.push((place, text));
    }
    fired.sort();
    Ok(fired.into_iter().map(|(_, text)| text).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray, TimestampMillisecondArray};
    use freshet_core::DriftCondition;

    use super::*;

    #[test]
    fn only_what_fired_at_the_point_is_told_in_the_monitors_order() {
        let condition = |column, inclusive| DriftCondition { method: DriftMethod::Psi, column, threshold: 0.1, inclusive, evaluations: 1 };
        let spec = DriftSpec {
            columns: vec![0, 1],
            names: vec!["p".into(), "wind".into()],
            scores: vec![true, false],
            time: 2,
            methods: vec![DriftMethod::Psi],
            model: 0,
            window_ms: 10,
            every_ms: 10,
            rows_min: 1,
            conditions: vec![condition(0, false), condition(1, true)],
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampMillisecondArray::from(vec![10, 20, 20, 20])),
            Arc::new(StringArray::from(vec!["p", "wind", "p", "p"])),
            Arc::new(StringArray::from(vec!["psi", "psi", "psi", "ks"])),
            Arc::new(Float64Array::from(vec![0.5, 0.25, 0.123_45, 0.9])),
            Arc::new(Float64Array::from(vec![Some(0.1), Some(0.1), Some(0.1), None])),
            Arc::new(Int64Array::from(vec![1, 1, 3, 0])),
            Arc::new(BooleanArray::from(vec![true, true, true, false])),
            Arc::new(StringArray::from(vec!["measured"; 4])),
            Arc::new(Int64Array::from(vec![100; 4])),
            Arc::new(Int64Array::from(vec![1; 4])),
        ];
        let rows = RecordBatch::try_new(DriftSpec::schema(), columns).unwrap();
        let told = conditions(Some(&spec), &rows, Epoch(20)).unwrap();
        assert_eq!(told, ["psi(p) = 0.1235 > 0.1, 3 evaluations", "psi(wind) = 0.2500 >= 0.1"]);
        assert!(conditions(Some(&spec), &rows, Epoch(30)).unwrap().is_empty());
    }
}
