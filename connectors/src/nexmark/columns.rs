//! Events as the columns that a source declares. In: a schema, once; numbers of events. Out: record batches.
//!
//! One table of all events has `event_type` (0, 1, 2), the time of the event (`dateTime`) and the fields of the three kinds, either as
//! `ROW<…>` columns called person, auction and bid or flat, as `bid_price`; those of other kinds are NULL. A table of one kind has the
//! fields alone. Case and underscores of names do not matter.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Builder, RecordBatch, RecordBatchOptions, StringBuilder, StructArray, TimestampMillisecondBuilder};
use arrow::buffer::NullBuffer;
use arrow::compute::{can_cast_types, cast};
use arrow::datatypes::{DataType, Field, Fields, SchemaRef, TimeUnit};
use freshet_core::Result;

use super::event::{Event, Generator};

const KINDS: [&str; 3] = ["person", "auction", "bid"];
const PERSON: [&str; 8] = ["id", "name", "emailaddress", "creditcard", "city", "state", "datetime", "extra"];
const AUCTION: [&str; 10] = ["id", "itemname", "description", "initialbid", "reserve", "datetime", "expires", "seller", "category", "extra"];
const BID: [&str; 7] = ["auction", "bidder", "price", "channel", "url", "datetime", "extra"];

/// Which field of which kind a column holds.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    EventType,
    /// The time of the event, whatever its kind.
    Time,
    Field(u8, usize),
}

#[derive(Debug, Clone)]
enum Source {
    Plain(Place),
    /// A ROW column of a kind, and its fields.
    Row(u8, Fields, Vec<Place>),
}

/// How to fill the columns of one source.
#[derive(Debug, Clone)]
pub struct Columns {
    schema: SchemaRef,
    sources: Vec<Source>,
    /// Of a table of one kind.
    kind: Option<u8>,
}

impl Columns {
    /// `kind`: 0, 1 or 2 for a table of one kind. Errors: the column that nothing fills, and why.
    pub fn new(schema: &SchemaRef, kind: Option<u8>) -> Result<Columns, (String, String)> {
        let sources = schema.fields().iter().map(|field| source_of(field, kind).map_err(|message| (field.name().clone(), message)));
        Ok(Columns { schema: schema.clone(), sources: sources.collect::<Result<_, _>>()?, kind })
    }

    /// Whether an event of this kind is a row.
    pub fn has(&self, kind: u8) -> bool {
        self.kind.is_none_or(|own| own == kind)
    }

    /// One row per number. Errors: none that a schema which was checked can cause.
    pub fn batch(&self, generator: &Generator, numbers: impl Iterator<Item = u64>) -> Result<RecordBatch> {
        let rows: Vec<(u8, i64, Event)> =
            numbers.map(|number| (generator.kind(number), generator.time_ms(number), generator.event(number))).collect();
        let columns = self.sources.iter().zip(self.schema.fields()).map(|(source, field)| match source {
            Source::Plain(place) => column(&rows, *place, field.data_type()),
            Source::Row(kind, fields, places) => {
                let columns = places.iter().zip(fields).map(|(place, field)| column(&rows, *place, field.data_type())).collect::<Result<Vec<_>>>()?;
                let there: NullBuffer = rows.iter().map(|(own, _, _)| own == kind).collect();
                Ok(Arc::new(StructArray::try_new(fields.clone(), columns, Some(there))?) as ArrayRef)
            }
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}

fn fields_of(kind: u8) -> &'static [&'static str] {
    match kind {
        0 => &PERSON,
        1 => &AUCTION,
        _ => &BID,
    }
}

fn source_of(field: &Field, kind: Option<u8>) -> Result<Source, String> {
    let name = plain(field.name());
    if let (DataType::Struct(fields), None) = (field.data_type(), kind) {
        let Some(kind) = KINDS.iter().position(|known| *known == name) else {
            return Err(format!("{} is none of the rows person, auction and bid", field.name()));
        };
        if !field.is_nullable() {
            return Err(format!("{} is NULL in events of other kinds; leave NOT NULL out", field.name()));
        }
        let places = fields.iter().map(|inner| place_in(inner, &plain(inner.name()), kind as u8)).collect::<Result<_, _>>()?;
        return Ok(Source::Row(kind as u8, fields.clone(), places));
    }
    let place = match kind {
        Some(kind) => return Ok(Source::Plain(place_in(field, &name, kind)?)),
        None if name == "eventtype" => checked(field, Place::EventType)?,
        None if matches!(name.as_str(), "datetime" | "customtime") => checked(field, Place::Time)?,
        None => {
            let of_kind = |kind: usize| Some((kind, name.strip_prefix(KINDS[kind])?));
            let Some((kind, inner)) = (0..3).find_map(of_kind) else {
                return Err(format!(
                    "no event has {}; a table of all events has event_type, dateTime and the fields of person, auction and bid, as ROW<…> columns or as \
                     bid_price; a table of one kind says which: 'table.type' = 'bid'",
                    field.name()
                ));
            };
            if !field.is_nullable() {
                return Err(format!("{} is NULL in events of other kinds; leave NOT NULL out", field.name()));
            }
            place_in(field, inner, kind as u8)?
        }
    };
    Ok(Source::Plain(place))
}

fn place_in(field: &Field, name: &str, kind: u8) -> Result<Place, String> {
    let name = if name == "customtime" { "datetime" } else { name };
    match fields_of(kind).iter().position(|known| *known == name) {
        Some(index) => checked(field, Place::Field(kind, index)),
        None => Err(format!("no {} has {}; it has {}", KINDS[kind as usize], field.name(), fields_of(kind).join(", "))),
    }
}

fn checked(field: &Field, place: Place) -> Result<Place, String> {
    let own = type_of(place);
    let wanted = field.data_type();
    let fits = *wanted == own
        || match own {
            DataType::Int64 => place == Place::EventType && wanted.is_integer(),
            DataType::Timestamp(_, _) => matches!(wanted, DataType::Timestamp(_, None)),
            _ => false,
        };
    if fits && can_cast_types(&own, wanted) {
        return Ok(place);
    }
    let sql = match own {
        DataType::Int64 => "BIGINT",
        DataType::Utf8 => "VARCHAR",
        _ => "TIMESTAMP(3)",
    };
    Err(format!("{} is {sql} here, not {wanted}", field.name()))
}

fn type_of(place: Place) -> DataType {
    match place {
        Place::EventType => DataType::Int64,
        Place::Time => DataType::Timestamp(TimeUnit::Millisecond, None),
        Place::Field(kind, index) => match fields_of(kind)[index] {
            "datetime" | "expires" => DataType::Timestamp(TimeUnit::Millisecond, None),
            "id" | "initialbid" | "reserve" | "seller" | "category" | "auction" | "bidder" | "price" => DataType::Int64,
            _ => DataType::Utf8,
        },
    }
}

fn column(rows: &[(u8, i64, Event)], place: Place, wanted: &DataType) -> Result<ArrayRef> {
    let own = type_of(place);
    let column: ArrayRef = match &own {
        DataType::Utf8 => {
            let mut builder = StringBuilder::with_capacity(rows.len(), rows.len() * 8);
            rows.iter().for_each(|(_, _, event)| builder.append_option(text(event, place)));
            Arc::new(builder.finish())
        }
        DataType::Int64 => {
            let mut builder = Int64Builder::with_capacity(rows.len());
            rows.iter().for_each(|(kind, _, event)| builder.append_option(number(event, *kind, place)));
            Arc::new(builder.finish())
        }
        _ => {
            let mut builder = TimestampMillisecondBuilder::with_capacity(rows.len());
            rows.iter().for_each(|(kind, time, event)| builder.append_option(time_of(event, (*kind, *time), place)));
            Arc::new(builder.finish())
        }
    };
    Ok(if own == *wanted { column } else { cast(&column, wanted)? })
}

fn text(event: &Event, place: Place) -> Option<&str> {
    let Place::Field(_, index) = place else { return None };
    Some(match (event, place) {
        (Event::Person(person), Place::Field(0, _)) => match PERSON[index] {
            "name" => &person.name,
            "emailaddress" => &person.email_address,
            "creditcard" => &person.credit_card,
            "city" => person.city,
            "state" => person.state,
            _ => &person.extra,
        },
        (Event::Auction(auction), Place::Field(1, _)) => match AUCTION[index] {
            "itemname" => &auction.item_name,
            "description" => &auction.description,
            _ => &auction.extra,
        },
        (Event::Bid(bid), Place::Field(2, _)) => match BID[index] {
            "channel" => &bid.channel,
            "url" => &bid.url,
            _ => &bid.extra,
        },
        _ => return None,
    })
}

fn number(event: &Event, kind: u8, place: Place) -> Option<i64> {
    let Place::Field(_, index) = place else { return Some(i64::from(kind)) };
    Some(match (event, place) {
        (Event::Person(person), Place::Field(0, _)) => person.id,
        (Event::Auction(auction), Place::Field(1, _)) => match AUCTION[index] {
            "id" => auction.id,
            "initialbid" => auction.initial_bid,
            "reserve" => auction.reserve,
            "seller" => auction.seller,
            _ => auction.category,
        },
        (Event::Bid(bid), Place::Field(2, _)) => match BID[index] {
            "auction" => bid.auction,
            "bidder" => bid.bidder,
            _ => bid.price,
        },
        _ => return None,
    })
}

fn time_of(event: &Event, (kind, time): (u8, i64), place: Place) -> Option<i64> {
    match (event, place) {
        (_, Place::Time) => Some(time),
        (Event::Auction(auction), Place::Field(1, index)) if AUCTION[index] == "expires" => Some(auction.expires_ms),
        (_, Place::Field(own, _)) => (own == kind).then_some(time),
        _ => None,
    }
}

/// As names compare here.
fn plain(name: &str) -> String {
    name.chars().filter(|letter| *letter != '_').flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Int32Type, Int64Type, Schema};

    use super::super::event::Shape;
    use super::*;

    fn schema(fields: &[(&str, DataType)]) -> SchemaRef {
        Arc::new(Schema::new(fields.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)).collect::<Vec<_>>()))
    }

    #[test]
    fn a_flat_table_and_one_of_rows_hold_the_same() {
        let time = DataType::Timestamp(TimeUnit::Microsecond, None);
        let flat =
            schema(&[("event_type", DataType::Int32), ("bid_price", DataType::Int64), ("auction_itemName", DataType::Utf8), ("dateTime", time)]);
        let row = |fields: &[(&str, DataType)]| DataType::Struct(schema(fields).fields().clone());
        let rows = schema(&[("bid", row(&[("price", DataType::Int64)])), ("auction", row(&[("item_name", DataType::Utf8)]))]);
        let generator = Generator::new(Shape::default());
        let flat = Columns::new(&flat, None).unwrap().batch(&generator, 0..100).unwrap();
        let rows = Columns::new(&rows, None).unwrap().batch(&generator, 0..100).unwrap();
        assert_eq!(flat.column(0).as_primitive::<Int32Type>().values()[..5], [0, 1, 1, 1, 2]);
        assert_eq!(flat.column(1).as_primitive::<Int64Type>().null_count(), 8);
        assert_eq!(flat.column(1), rows.column(0).as_struct().column(0));
        assert_eq!(flat.column(2), rows.column(1).as_struct().column(0));
        assert!(rows.column(0).is_null(0) && rows.column(0).is_valid(4));
    }

    #[test]
    fn a_table_of_one_kind_has_its_fields() {
        let bids =
            Columns::new(&schema(&[("auction", DataType::Int64), ("date_time", DataType::Timestamp(TimeUnit::Millisecond, None))]), Some(2)).unwrap();
        assert!(bids.has(2) && !bids.has(0));
        assert_eq!(bids.batch(&Generator::new(Shape::default()), 4..50).unwrap().num_rows(), 46);
    }

    #[test]
    fn what_nothing_fills_is_named() {
        let wrong = |name: &str, data_type, kind| Columns::new(&schema(&[(name, data_type)]), kind).unwrap_err().1;
        assert_eq!(wrong("prize", DataType::Int64, Some(2)), "no bid has prize; it has auction, bidder, price, channel, url, datetime, extra");
        assert_eq!(wrong("bid_price", DataType::Utf8, None), "bid_price is BIGINT here, not Utf8");
        assert!(wrong("weight", DataType::Int64, None).contains("'table.type' = 'bid'"));
    }
}
