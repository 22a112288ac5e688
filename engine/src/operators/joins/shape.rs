//! What a join joins by, and the columns of its output. In: the node. Out: codecs and types that every kind of join shares.

use arrow::datatypes::{DataType, Schema, SchemaRef};
use freshet_core::{JoinKind, KeyCodec, Result};

/// Of one join node.
#[derive(Debug)]
pub struct Shape {
    pub kind: JoinKind,
    pub keys: [Vec<usize>; 2],
    pub nulls_equal: bool,
    pub(super) key_codec: KeyCodec,
    pub(super) row_codecs: [KeyCodec; 2],
    pub(super) types: [Vec<DataType>; 2],
    /// Of the output.
    pub(super) schema: SchemaRef,
}

impl Shape {
    /// Errors: Invalid for columns without order.
    pub fn new(kind: JoinKind, keys: [Vec<usize>; 2], nulls_equal: bool, inputs: [&SchemaRef; 2], schema: SchemaRef) -> Result<Shape> {
        let types_of = |schema: &Schema| schema.fields().iter().map(|field| field.data_type().clone()).collect::<Vec<_>>();
        let types = inputs.map(|schema| types_of(schema));
        let key_types: Vec<DataType> = keys[0].iter().map(|key| types[0][*key].clone()).collect();
        let key_codec = KeyCodec::new(&key_types)?;
        let row_codecs = [KeyCodec::for_schema(inputs[0])?, KeyCodec::for_schema(inputs[1])?];
        Ok(Shape { kind, keys, nulls_equal, key_codec, row_codecs, types, schema })
    }

    /// Whether the rows of this side are kept. Of the right side of a semi, anti or mark join it is enough to know how many there are.
    pub(super) fn keeps(&self, side: usize) -> bool {
        side == 0 || self.kind.shows_right()
    }

    /// How a left row with partners, or without, is shown: not at all, or with this mark.
    pub(super) fn left_alone(&self, has_partners: bool) -> Option<Option<bool>> {
        match self.kind {
            JoinKind::Left | JoinKind::Full | JoinKind::Anti => (!has_partners).then_some(None),
            JoinKind::Semi => has_partners.then_some(None),
            JoinKind::Mark => Some(Some(has_partners)),
            JoinKind::Inner | JoinKind::NullAwareAnti | JoinKind::NullAwareMark => None,
        }
    }
}
