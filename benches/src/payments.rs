//! Payments as records of a topic, and how a program that knows them reads them. In: a number. Out: the payment of that number as JSON, Avro or
//! Protobuf; and bare parsers, each into typed fields that borrow from the record.

use serde::Deserialize;

/// The columns of a source of payments.
pub const PAYMENT_COLUMNS: &str = "id BIGINT, card VARCHAR, merchant VARCHAR, country VARCHAR, device VARCHAR, amount DOUBLE, fee DOUBLE, currency VARCHAR, \
                                   online BOOLEAN, at TIMESTAMP(3)";
pub const PAYMENT_AVRO: &str = r#"{"type":"record","name":"payment","fields":[{"name":"id","type":"long"},{"name":"card","type":"string"},{"name":"merchant","type":"string"},{"name":"country","type":"string"},{"name":"device","type":"string"},{"name":"amount","type":"double"},{"name":"fee","type":"double"},{"name":"currency","type":"string"},{"name":"online","type":"boolean"},{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}}]}"#;
pub const PAYMENT_PROTO: &str = "syntax = \"proto3\"; message Payment { int64 id = 1; string card = 2; string merchant = 3; string country = 4; string device = 5; \
                                 double amount = 6; double fee = 7; string currency = 8; bool online = 9; int64 at = 10; }";

/// What a bare parser makes of a record.
#[derive(Deserialize)]
pub struct Payment<'a> {
    pub id: i64,
    pub card: &'a str,
    pub merchant: &'a str,
    pub country: &'a str,
    pub device: &'a str,
    pub amount: f64,
    pub fee: f64,
    pub currency: &'a str,
    pub online: bool,
    pub at: i64,
}

/// Calls `write` with the payment of this number.
fn payment<T>(id: u64, write: impl FnOnce(&Payment) -> T) -> T {
    let amount = (id % 90_000) as f64 / 8.0;
    let payment = Payment {
        id: id as i64,
        card: &format!("4{:015}", id % 50_000),
        merchant: &format!("shop-{}", id % 997),
        country: ["CH", "DE", "FR", "IT", "AT"][(id % 5) as usize],
        device: &format!("{:016x}", id.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        amount,
        fee: (amount * 0.029 * 1e4).round() / 1e4,
        currency: "EUR",
        online: id.is_multiple_of(3),
        at: 1_357_034_400_000 + id as i64,
    };
    write(&payment)
}

pub fn payment_json(id: u64) -> Vec<u8> {
    payment(id, |payment| {
        let Payment { id, card, merchant, country, device, amount, fee, currency, online, at } = payment;
        format!(
            "{{\"id\":{id},\"card\":\"{card}\",\"merchant\":\"{merchant}\",\"country\":\"{country}\",\"device\":\"{device}\",\"amount\":{amount:.2},\
             \"fee\":{fee},\"currency\":\"{currency}\",\"online\":{online},\"at\":{at}}}"
        )
        .into_bytes()
    })
}

/// Without a header.
pub fn payment_avro(id: u64) -> Vec<u8> {
    payment(id, |payment| {
        let mut out = Vec::with_capacity(96);
        long(&mut out, payment.id);
        for text in [payment.card, payment.merchant, payment.country, payment.device] {
            counted(&mut out, text);
        }
        out.extend(payment.amount.to_le_bytes());
        out.extend(payment.fee.to_le_bytes());
        counted(&mut out, payment.currency);
        out.push(u8::from(payment.online));
        long(&mut out, payment.at);
        out
    })
}

pub fn payment_proto(id: u64) -> Vec<u8> {
    payment(id, |payment| {
        let mut out = Vec::with_capacity(112);
        let number = |out: &mut Vec<u8>, field: u8, value: u64| {
            out.push(field << 3);
            varint(out, value);
        };
        let text = |out: &mut Vec<u8>, field: u8, value: &str| {
            out.push(field << 3 | 2);
            varint(out, value.len() as u64);
            out.extend(value.as_bytes());
        };
        number(&mut out, 1, payment.id as u64);
        for (field, value) in (2..).zip([payment.card, payment.merchant, payment.country, payment.device]) {
            text(&mut out, field, value);
        }
        for (field, value) in [(6, payment.amount), (7, payment.fee)] {
            out.push(field << 3 | 1);
            out.extend(value.to_le_bytes());
        }
        text(&mut out, 8, payment.currency);
        number(&mut out, 9, u64::from(payment.online));
        number(&mut out, 10, payment.at as u64);
        out
    })
}

fn long(out: &mut Vec<u8>, value: i64) {
    varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

fn counted(out: &mut Vec<u8>, value: &str) {
    long(out, value.len() as i64);
    out.extend(value.as_bytes());
}

fn varint(out: &mut Vec<u8>, mut rest: u64) {
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

pub fn parse_with_serde_json(record: &[u8]) -> bool {
    std::hint::black_box(serde_json::from_slice::<Payment>(record)).is_ok()
}

pub fn parse_with_sonic(record: &[u8]) -> bool {
    std::hint::black_box(sonic_rs::from_slice::<Payment>(record)).is_ok()
}

/// By hand, field by field, as a program compiled for this schema would: no decoder that reads a schema can be faster.
pub fn parse_avro_by_hand(record: &[u8]) -> bool {
    let mut rest = record;
    let rest = &mut rest;
    let parsed = (|| {
        Some(Payment {
            id: take_long(rest)?,
            card: take_text(rest)?,
            merchant: take_text(rest)?,
            country: take_text(rest)?,
            device: take_text(rest)?,
            amount: f64::from_le_bytes(take(rest, 8)?.try_into().ok()?),
            fee: f64::from_le_bytes(take(rest, 8)?.try_into().ok()?),
            currency: take_text(rest)?,
            online: take(rest, 1)?[0] == 1,
            at: take_long(rest)?,
        })
    })();
    std::hint::black_box(parsed).is_some()
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

fn take_long(rest: &mut &[u8]) -> Option<i64> {
    let (mut value, mut shift) = (0_u64, 0);
    loop {
        let byte = take(rest, 1)?[0];
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
        shift += 7;
    }
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let count = take_long(rest)?;
    std::str::from_utf8(take(rest, usize::try_from(count).ok()?)?).ok()
}
