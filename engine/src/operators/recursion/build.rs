//! The loop of a recursion. In: the streams of its inputs. Out: streams of changes and errors, not yet consolidated.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use differential_dataflow::AsCollection;
use differential_dataflow::operators::iterate::Variable;
use freshet_core::{Batch, Counts, Diffs, KeyCodec, RECURSION_ROUNDS_MAX, RecursionBody, Result};
use timely::dataflow::Scope;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::generic::{Operator, OutputBuilder};
use timely::order::Product;

use super::rounds::{Round, Rows, check, round};
use crate::edge::{Edge, EdgeBuilder};
use crate::operators::harness::{Bundle, Rows as Edges};
use crate::operators::{ErrorRows, Origins, error_schema};

/// Builds the loop. `inputs[0]` is the base, whose columns are `schema`. Errors: Invalid for columns without order.
pub fn recursion<'scope>(
    scope: Scope<'scope, u64>,
    name: &str,
    inputs: &[(Edges<'scope>, SchemaRef)],
    (body, distinct): (&RecursionBody, bool),
    schema: &SchemaRef,
) -> Result<Bundle<'scope>> {
    check(name, body, schema)?;
    let inputs = inputs.iter().map(|(rows, schema)| enter(name, rows.clone(), schema)).collect::<Result<Vec<_>>>()?;
    let (rows, errors) = scope.iterative::<u64, _, _>(|inner| {
        let (variable, before) = Variable::new(inner, Product::new(Default::default(), 1));
        let mut arguments: Vec<Rows<'_, Round>> = inputs.iter().map(|input| input.clone().enter(inner)).collect();
        let base = std::mem::replace(&mut arguments[0], before);
        let (found, mut errors) = round(name, body, &arguments)?;
        let all = base.concat(found);
        let all: Rows<'_, Round> = if distinct { all.threshold(|_, count| i64::from(*count > 0)) } else { all.consolidate() };
        let (next, ended) = end_of(name, all.clone());
        variable.set(next);
        errors.push(endless(name, ended)?);
        let errors = errors.into_iter().map(|errors| errors.leave(scope)).collect::<Vec<_>>();
        Ok::<_, freshet_core::Error>((all.leave(scope), errors))
    })?;
    let mut errors = errors.into_iter();
    let first = errors.next().expect("there is one for the rounds themselves");
    let errors = first.concatenate(errors).consolidate();
    Ok(Bundle { rows: leave(name, rows, schema)?, errors: leave(name, errors, &error_schema())? })
}

/// What the last round allowed still changes goes no further, and is handed out beside.
fn end_of<'scope>(name: &str, rows: Rows<'scope, Round>) -> (Rows<'scope, Round>, Rows<'scope, Round>) {
    let split = |name: String, rows: Rows<'scope, Round>, last: bool| {
        let kept = rows.inner.unary(Pipeline, &name, move |_, _| {
            move |input, output| {
                input.for_each(|capability, updates: &mut Vec<(Vec<u8>, Round, i64)>| {
                    let updates = std::mem::take(updates).into_iter();
                    output.session(&capability).give_iterator(updates.filter(|(_, time, _)| (time.inner >= RECURSION_ROUNDS_MAX) == last));
                });
            }
        });
        kept.as_collection()
    };
    (split(format!("{name} next"), rows.clone(), false), split(format!("{name} end"), rows, true))
}

/// One error row for each row that a round too many would have brought.
fn endless<'scope>(name: &str, rows: Rows<'scope, Round>) -> Result<Rows<'scope, Round>> {
    let codec = KeyCodec::for_schema(&error_schema())?;
    let mut errors = ErrorRows::new(name, Origins::default());
    let reason = format!("the recursion goes on after {RECURSION_ROUNDS_MAX} rounds; its rows are those found so far");
    errors.push_at(0, 1, 0, "", &reason, None);
    let batch = errors.finish().expect("one row was pushed");
    let encoded = codec.encode(batch.rows().columns()).expect("the codec was made for these columns");
    let error = encoded.row(0).as_ref().to_vec();
    Ok(rows.map(move |_| error.clone()))
}

/// Batches become updates, each at the epoch of its row.
fn enter<'scope>(name: &str, rows: Edges<'scope>, schema: &SchemaRef) -> Result<Rows<'scope, u64>> {
    let codec = KeyCodec::for_schema(schema)?;
    let updates = rows.unary(Pipeline, &format!("{name} in"), move |_, _| {
        move |input, output| {
            input.for_each(|capability, edge: &mut Edge| {
                let Some(batch) = edge.0.take() else { return };
                let encoded = codec.encode(batch.rows().columns()).expect("the codec was made for these columns");
                let updates = encoded.iter().enumerate().map(|(row, bytes)| (bytes.as_ref().to_vec(), batch.epoch(row).0, batch.diff(row)));
                output.session(&capability).give_iterator(updates);
            });
        }
    });
    Ok(updates.as_collection())
}

/// Updates become batches again.
fn leave<'scope>(name: &str, rows: Rows<'scope, u64>, schema: &SchemaRef) -> Result<Edges<'scope>> {
    let (codec, schema) = (KeyCodec::for_schema(schema)?, schema.clone());
    let mut builder = OperatorBuilder::new(format!("{name} out"), rows.inner.scope());
    let mut input = builder.new_input(rows.inner, Pipeline);
    let (output, edges) = builder.new_output::<Edge>();
    let mut output: OutputBuilder<u64, EdgeBuilder> = OutputBuilder::from(output);
    builder.build(move |capabilities| {
        drop(capabilities);
        move |_frontiers| {
            input.for_each(|capability, updates: &mut Vec<(Vec<u8>, u64, i64)>| {
                let updates = std::mem::take(updates);
                let rows: RecordBatch =
                    codec.decode_batch(&schema, updates.iter().map(|(row, _, _)| row.as_slice())).expect("these are rows of this codec");
                let epochs: Vec<u64> = updates.iter().map(|(_, epoch, _)| *epoch).collect();
                let diffs: Vec<i64> = updates.iter().map(|(_, _, diff)| *diff).collect();
                let batch = Batch::new(rows, Counts::Each(epochs.into()), Diffs::Each(diffs.into()), Counts::Const(0));
                let capability = capability.retain(0);
                output.activate().session_with_builder(&capability).give(batch);
            });
        }
    });
    Ok(edges)
}
