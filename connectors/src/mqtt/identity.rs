//! Who a source or sink is to the broker when the script does not say: its name, and the data directory that only one pipeline has at a time.

use std::path::Path;

use freshet_core::{SinkDef, SourceDef};

use super::settings::default_client_id;

const CLIENT_ID: &str = "client_id";

/// The source with a client id, if it is one of MQTT and has none.
pub fn source_of(def: &SourceDef, data_dir: &Path) -> SourceDef {
    let mut def = def.clone();
    if def.connector == "mqtt" && !def.options.contains_key(CLIENT_ID) {
        let id = default_client_id(&format!("source {}", def.name), &def.options, data_dir);
        def.options.insert(CLIENT_ID.into(), id);
    }
    def
}

/// The sink with a client id, if it is one of MQTT and has none.
pub fn sink_of(def: &SinkDef, data_dir: &Path) -> SinkDef {
    let mut def = def.clone();
    if def.connector == "mqtt" && !def.options.contains_key(CLIENT_ID) {
        let id = default_client_id(&format!("sink {}", def.name), &def.options, data_dir);
        def.options.insert(CLIENT_ID.into(), id);
    }
    def
}
