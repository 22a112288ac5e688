//! What a Flight SQL client may ask about the server. In: catalog commands. Out: one batch each, whose schema is also the announced one.
//! Views live in freshet.public, feature services in freshet.features; the entity of a feature view is its primary key.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{
    CommandGetCatalogs, CommandGetDbSchemas, CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables,
    CommandGetXdbcTypeInfo, Nullable, Searchable, SqlInfo, SqlSupportedTransaction, XdbcDataType,
};
use freshet_core::Reader;

use crate::wire::wire_schema;

type Result<T> = std::result::Result<T, FlightError>;

const CATALOG: &str = "freshet";
const VIEWS: &str = "public";
const SERVICES: &str = "features";
const TABLE_TYPES: [&str; 6] = ["DEAD LETTERS", "ERRORS", "FEATURE SERVICE", "FEATURE VIEW", "LATE", "VIEW"];

/// The catalog of a running pipeline, and the facts about this server.
pub struct Catalog {
    reader: Arc<dyn Reader>,
    facts: SqlInfoData,
    types: XdbcTypeInfoData,
}

impl Catalog {
    /// `takes_rows`: clients may append to sources.
    pub fn new(reader: Arc<dyn Reader>, takes_rows: bool) -> Catalog {
        Catalog { reader, facts: facts(takes_rows), types: types() }
    }

    pub fn catalogs(&self, command: CommandGetCatalogs) -> Result<RecordBatch> {
        let mut builder = command.into_builder();
        builder.append(CATALOG);
        builder.build()
    }

    pub fn schemas(&self, command: CommandGetDbSchemas) -> Result<RecordBatch> {
        let mut builder = command.into_builder();
        for schema in [SERVICES, VIEWS] {
            builder.append(CATALOG, schema);
        }
        builder.build()
    }

    pub fn tables(&self, command: CommandGetTables) -> Result<RecordBatch> {
        let mut builder = command.into_builder();
        for service in self.reader.services() {
            builder.append(CATALOG, SERVICES, &service.def.name, "FEATURE SERVICE", &wire_schema(&service.def.schema))?;
        }
        for view in self.reader.views() {
            builder.append(CATALOG, VIEWS, &view.name, view.kind, &wire_schema(&view.schema))?;
        }
        builder.build()
    }

    pub fn table_types(&self, command: CommandGetTableTypes) -> Result<RecordBatch> {
        let mut builder = command.into_builder();
        for kind in TABLE_TYPES {
            builder.append(kind);
        }
        builder.build()
    }

    pub fn facts(&self, command: CommandGetSqlInfo) -> Result<RecordBatch> {
        command.into_builder(&self.facts).build()
    }

    pub fn types(&self, command: CommandGetXdbcTypeInfo) -> Result<RecordBatch> {
        command.into_builder(&self.types).build()
    }

    pub fn primary_keys(&self, command: &CommandGetPrimaryKeys) -> Result<RecordBatch> {
        let elsewhere = command.catalog.as_deref().is_some_and(|catalog| catalog != CATALOG)
            || command.db_schema.as_deref().is_some_and(|schema| schema != VIEWS);
        let views = self.reader.views();
        let entity = views.iter().find(|view| view.name == command.table && !elsewhere).map_or(&[][..], |view| &view.entity[..]);
        let repeat = |text: &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(entity.iter().map(|_| text))) };
        let columns: Vec<ArrayRef> = vec![
            repeat(CATALOG),
            repeat(VIEWS),
            repeat(&command.table),
            Arc::new(StringArray::from_iter_values(entity)),
            repeat("entity"),
            Arc::new(Int32Array::from_iter_values(1..=entity.len() as i32)),
        ];
        let fields = vec![
            Field::new("catalog_name", DataType::Utf8, true),
            Field::new("db_schema_name", DataType::Utf8, true),
            Field::new("table_name", DataType::Utf8, false),
            Field::new("column_name", DataType::Utf8, false),
            Field::new("key_name", DataType::Utf8, true),
            Field::new("key_sequence", DataType::Int32, false),
        ];
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }

    /// Exported, imported and cross-reference keys: a pipeline has none.
    pub fn foreign_keys(&self) -> Result<RecordBatch> {
        let text = |name: &str, nullable: bool| Field::new(name, DataType::Utf8, nullable);
        let fields = vec![
            text("pk_catalog_name", true),
            text("pk_db_schema_name", true),
            text("pk_table_name", false),
            text("pk_column_name", false),
            text("fk_catalog_name", true),
            text("fk_db_schema_name", true),
            text("fk_table_name", false),
            text("fk_column_name", false),
            Field::new("key_sequence", DataType::Int32, false),
            text("fk_key_name", true),
            text("pk_key_name", true),
            Field::new("update_rule", DataType::UInt8, false),
            Field::new("delete_rule", DataType::UInt8, false),
        ];
        Ok(RecordBatch::new_empty(Arc::new(Schema::new(fields))))
    }
}

fn facts(takes_rows: bool) -> SqlInfoData {
    let mut facts = SqlInfoDataBuilder::new();
    facts.append(SqlInfo::FlightSqlServerName, "freshet");
    facts.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    facts.append(SqlInfo::FlightSqlServerArrowVersion, "1.3");
    facts.append(SqlInfo::FlightSqlServerReadOnly, !takes_rows);
    facts.append(SqlInfo::FlightSqlServerSql, true);
    facts.append(SqlInfo::FlightSqlServerSubstrait, false);
    facts.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    facts.append(SqlInfo::FlightSqlServerCancel, false);
    facts.append(SqlInfo::FlightSqlServerBulkIngestion, takes_rows);
    facts.build().expect("constant facts are well formed")
}

fn types() -> XdbcTypeInfoData {
    let types = [
        ("BIGINT", XdbcDataType::XdbcBigint, Some(64), None),
        ("INTEGER", XdbcDataType::XdbcInteger, Some(32), None),
        ("DOUBLE", XdbcDataType::XdbcDouble, Some(53), None),
        ("VARCHAR", XdbcDataType::XdbcVarchar, None, Some("'")),
        ("BOOLEAN", XdbcDataType::XdbcBit, Some(1), None),
        ("DATE", XdbcDataType::XdbcDate, Some(10), Some("DATE '")),
        ("TIMESTAMP", XdbcDataType::XdbcTimestamp, Some(26), Some("TIMESTAMP '")),
    ];
    let mut data = XdbcTypeInfoDataBuilder::new();
    for (name, data_type, column_size, prefix) in types {
        data.append(XdbcTypeInfo {
            type_name: name.to_string(),
            data_type,
            sql_data_type: data_type,
            column_size,
            literal_prefix: prefix.map(str::to_string),
            literal_suffix: prefix.map(|_| "'".to_string()),
            nullable: Nullable::NullabilityNullable,
            case_sensitive: true,
            searchable: Searchable::Full,
            ..XdbcTypeInfo::default()
        });
    }
    data.build().expect("constant types are well formed")
}
