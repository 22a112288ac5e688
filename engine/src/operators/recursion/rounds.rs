//! One round of a recursion: each node of its body over collections of encoded rows. In: the arguments. Out: the rows of the last node, and
//! what could not be computed, both retractable.

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, SchemaRef};
use differential_dataflow::{AsCollection, VecCollection};
use freshet_core::{Batch, Counts, Diffs, Error, JoinKind, KeyCodec, Node, Op, RecursionBody, Result};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::generic::{Operator, OutputBuilder};
use timely::order::Product;

use crate::operators::{Origins, Output, error_schema, filter, project};

/// The epoch, and the round.
pub type Round = Product<u64, u64>;
/// Rows as the bytes of their codec, with how often each comes or goes.
pub type Rows<'scope, T> = VecCollection<'scope, T, Vec<u8>, i64>;
type Keyed<'scope> = VecCollection<'scope, Round, (Vec<u8>, Vec<u8>), i64>;

/// Rows and errors of the body's last node. Errors: Invalid for columns without order, Internal for an operator no body has.
pub fn round<'scope>(name: &str, body: &RecursionBody, arguments: &[Rows<'scope, Round>]) -> Result<(Rows<'scope, Round>, Vec<Rows<'scope, Round>>)> {
    let (mut found, mut errors): (Vec<Rows<'scope, Round>>, _) = (Vec::new(), Vec::new());
    for node in &body.nodes {
        let inputs: Vec<Rows<'scope, Round>> = node.inputs.iter().map(|input| found[input.index()].clone()).collect();
        let schema_of = |input: usize| &body.nodes[node.inputs[input].index()].schema;
        let mut by_row = |rows: Rows<'scope, Round>, schema: &SchemaRef, map: Map| {
            let (rows, failed) = map_rows(name, rows, (schema, &node.schema), map)?;
            errors.push(failed);
            Ok::<_, Error>(rows)
        };
        let rows = match &node.op {
            Op::Argument { index } => arguments[*index].clone(),
            Op::Project { exprs } => {
                by_row(inputs[0].clone(), schema_of(0), Box::new(project(name.to_string(), exprs.clone(), node.schema.clone(), Origins::default())))?
            }
            Op::Filter { conjuncts } => {
                by_row(inputs[0].clone(), schema_of(0), Box::new(filter(name.to_string(), conjuncts.clone(), Origins::default())))?
            }
            Op::Union => {
                let mut inputs = inputs.into_iter();
                let first = inputs.next().ok_or_else(|| Error::internal(format!("{name}: a union of nothing")))?;
                first.concatenate(inputs)
            }
            Op::Join { kind: JoinKind::Inner, left_keys, right_keys, nulls_equal: false, residual } => {
                let left = keyed(name, inputs[0].clone(), schema_of(0), left_keys)?;
                let right = keyed(name, inputs[1].clone(), schema_of(1), right_keys)?;
                // The bytes of a row are those of its columns, one behind the other.
                let joined = left.join_map(right, |_, left, right| [left.as_slice(), right.as_slice()].concat());
                if residual.is_empty() {
                    joined
                } else {
                    by_row(joined, &node.schema, Box::new(filter(name.to_string(), residual.clone(), Origins::default())))?
                }
            }
            other => return Err(Error::internal(format!("{name}: {other:?} in the body of a recursion"))),
        };
        found.push(rows);
    }
    let last = found.pop().ok_or_else(|| Error::internal(format!("{name}: an empty body")))?;
    Ok((last, errors))
}

type Map = Box<dyn FnMut(Batch, &mut Output)>;

/// Runs a stateless operator over whole messages. A row's position says which update it came from.
fn map_rows<'scope>(
    name: &str,
    rows: Rows<'scope, Round>,
    (input, output): (&SchemaRef, &SchemaRef),
    mut map: Map,
) -> Result<(Rows<'scope, Round>, Rows<'scope, Round>)> {
    let (decoder, encoder, failures) = (KeyCodec::for_schema(input)?, KeyCodec::for_schema(output)?, KeyCodec::for_schema(&error_schema())?);
    let input = input.clone();
    let mut builder = OperatorBuilder::new(name.to_string(), rows.inner.scope());
    let mut port = builder.new_input(rows.inner, Pipeline);
    let (rows_output, kept) = builder.new_output::<Vec<(Vec<u8>, Round, i64)>>();
    let (errors_output, failed) = builder.new_output::<Vec<(Vec<u8>, Round, i64)>>();
    let (mut rows_output, mut errors_output) = (OutputBuilder::from(rows_output), OutputBuilder::from(errors_output));
    builder.build(move |capabilities| {
        drop(capabilities);
        move |_frontiers| {
            port.for_each(|capability, updates| {
                let updates = std::mem::take(updates);
                let batch = decoder.decode_batch(&input, updates.iter().map(|(row, _, _)| row.as_slice())).expect("these are rows of this codec");
                let places: Vec<u64> = (0..updates.len() as u64).collect();
                let mut out = Output::default();
                map(Batch::new(batch, Counts::Const(0), Diffs::One, Counts::Each(places.into())), &mut out);
                let errors_capability = capability.delayed(capability.time(), 1);
                let rows_capability = capability.retain(0);
                let mut rows = rows_output.activate();
                rows.session(&rows_capability).give_iterator(out.rows.iter().flat_map(|batch| updates_of(batch, &encoder, &updates)));
                let mut errors = errors_output.activate();
                errors.session(&errors_capability).give_iterator(out.errors.iter().flat_map(|batch| updates_of(batch, &failures, &updates)));
            });
        }
    });
    Ok((kept.as_collection(), failed.as_collection()))
}

fn updates_of(batch: &Batch, codec: &KeyCodec, from: &[(Vec<u8>, Round, i64)]) -> Vec<(Vec<u8>, Round, i64)> {
    let encoded = codec.encode(batch.rows().columns()).expect("the codec was made for these columns");
    let update = |(row, bytes): (usize, arrow::row::Row<'_>)| {
        let (_, time, diff) = &from[batch.position(row) as usize];
        (bytes.as_ref().to_vec(), *time, diff * batch.diff(row))
    };
    encoded.iter().enumerate().map(update).collect()
}

/// Rows under their keys; those with a NULL in it match nothing and are left out.
fn keyed<'scope>(name: &str, rows: Rows<'scope, Round>, schema: &SchemaRef, keys: &[usize]) -> Result<Keyed<'scope>> {
    let types: Vec<DataType> = keys.iter().map(|key| schema.field(*key).data_type().clone()).collect();
    let (decoder, codec, keys) = (KeyCodec::for_schema(schema)?, KeyCodec::new(&types)?, keys.to_vec());
    let keyed = rows.inner.unary(Pipeline, &format!("{name} keys"), move |_, _| {
        move |input, output| {
            input.for_each(|capability, updates| {
                let updates = std::mem::take(updates);
                if keys.is_empty() {
                    output.session(&capability).give_iterator(updates.into_iter().map(|(row, time, diff)| ((Vec::new(), row), time, diff)));
                    return;
                }
                let columns = decoder.decode(updates.iter().map(|(row, _, _)| row.as_slice())).expect("these are rows of this codec");
                let columns: Vec<ArrayRef> = keys.iter().map(|key| columns[*key].clone()).collect();
                let encoded = codec.encode(&columns).expect("the codec was made for these columns");
                let known = updates.into_iter().enumerate().filter(|(row, _)| columns.iter().all(|column| column.is_valid(*row)));
                let keyed = known.map(|(place, (row, time, diff))| ((encoded.row(place).as_ref().to_vec(), row), time, diff));
                output.session(&capability).give_iterator(keyed);
            });
        }
    });
    Ok(keyed.as_collection())
}

/// The body's result must have the columns of the base.
pub fn check(name: &str, body: &RecursionBody, schema: &SchemaRef) -> Result<()> {
    let fits = |last: &Node| last.schema.fields().iter().zip(schema.fields()).all(|(found, wanted)| found.data_type() == wanted.data_type());
    if body.nodes.last().is_some_and(|last| last.schema.fields().len() == schema.fields().len() && fits(last)) {
        return Ok(());
    }
    Err(Error::internal(format!("{name}: a round gives other columns than the base")))
}
