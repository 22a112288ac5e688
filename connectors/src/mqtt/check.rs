//! What can be said of an MQTT source or sink before anything is connected to.

use freshet_core::{OptionError, SinkDef, SourceDef};

use super::settings::{BROKER_OPTIONS, SINK_OPTIONS, SOURCE_OPTIONS, SinkSettings, SourceSettings};
use super::sink::parse_topic;
use super::source::check_metadata;
use crate::reject::Rejects;
use crate::{decode, encode, options};

pub fn check_source(def: &SourceDef) -> Result<(), OptionError> {
    let known = [&BROKER_OPTIONS[..], &SOURCE_OPTIONS, &["bad_data"], &decode::source_options(def.format, def.encode)].concat();
    options::check_names("mqtt", def.options.keys(), &known)?;
    SourceSettings::parse(&def.name, &def.options)?;
    check_metadata(&def.metadata)?;
    decode::check_source(def)
}

pub fn check_sink(def: &SinkDef) -> Result<(), OptionError> {
    let known = [&BROKER_OPTIONS[..], &SINK_OPTIONS, &["primary_key"], &encode::sink_options(def.format, def.encode)].concat();
    options::check_names("mqtt", def.options.keys(), &known)?;
    SinkSettings::parse(&def.name, &def.options)?;
    Rejects::parse(&def.name, &def.options)?;
    parse_topic(def)?;
    encode::check_sink(def)
}
