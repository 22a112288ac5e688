//! Plain Flight without Flight SQL. In: a path or a JSON ticket. Out: the content of a view, or features of the keys in the ticket, with
//! the point it was read at in the metadata of every message.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use freshet_core::{CatalogView, Epoch, Error, Reader, Result};
use futures::{StreamExt, stream};

use crate::ask::{Ask, FeaturesAsk};
use crate::columns::from_json;
use crate::error::grpc_status;
use crate::flight::front::AnswerStream;
use crate::flight::subscribe::Subscriptions;
use crate::lookup::{Lookups, point_metadata};
use crate::positions::Positions;
use crate::wire::{messages, wire_schema};

pub struct Plain {
    pub reader: Arc<dyn Reader>,
    pub lookups: Arc<Lookups>,
    pub subscriptions: Arc<Subscriptions>,
}

impl Plain {
    /// All views and services, each under its path.
    pub fn list(&self) -> Result<Vec<FlightInfo>> {
        let views = self.reader.views().into_iter().map(|view| {
            let descriptor = FlightDescriptor::new_path(vec![view.name.clone()]);
            self.info(Ask::View { view: view.name, as_of: None, min_position: Positions::default() }, descriptor)
        });
        let services = self.lookups.services().map(|service| {
            let descriptor = FlightDescriptor::new_path(vec!["features".to_string(), service.name.clone()]);
            self.info(Ask::Features(FeaturesAsk::of(&service.name)), descriptor)
        });
        views.chain(services).collect()
    }

    /// The schema and, for what can be fetched, an endpoint. A service without keys has none: its keys come by DoExchange.
    pub fn info(&self, ask: Ask, descriptor: FlightDescriptor) -> Result<FlightInfo> {
        let info = FlightInfo::new().try_with_schema(&*self.schema(&ask)?)?.with_descriptor(descriptor);
        let ticket = match ask {
            Ask::View { view, as_of, min_position } => {
                serde_json::json!({ "view": view, "as_of": as_of.map(|epoch| epoch.0), "min_position": min_position })
            }
            Ask::Features(ask) if !ask.keys.is_empty() => serde_json::to_value(ask).map_err(|error| Error::internal(error.to_string()))?,
            Ask::Subscribe(request, progress) => serde_json::json!({
                "subscribe": request.view,
                "snapshot": request.snapshot,
                "progress": progress,
                "as_of": request.as_of.map(|epoch| epoch.0),
                "up_to": request.up_to.map(|epoch| epoch.0),
                "reader": request.reader,
            }),
            Ask::Features(_) | Ask::Sql(_) => return Ok(info),
        };
        Ok(info.with_endpoint(FlightEndpoint::new().with_ticket(Ticket::new(ticket.to_string()))))
    }

    pub fn schema(&self, ask: &Ask) -> Result<SchemaRef> {
        match ask {
            Ask::View { view, .. } => Ok(wire_schema(&self.view(view)?.schema)),
            Ask::Features(ask) => {
                let service = self.lookups.service(&ask.service)?;
                Ok(if ask.status { service.output_with_status.clone() } else { service.output.clone() })
            }
            Ask::Subscribe(request, _) => self.subscriptions.schema(&request.view),
            Ask::Sql(_) => Err(Error::internal("SQL text has its schema from the planner")),
        }
    }

    pub fn get(&self, ask: Ask) -> Result<AnswerStream> {
        match ask {
            Ask::View { view, as_of, .. } => self.get_view(&view, as_of),
            Ask::Features(ask) => self.get_features(&ask),
            Ask::Subscribe(request, progress) => self.subscriptions.open(&request, progress),
            Ask::Sql(_) => Err(Error::internal("SQL text is answered by the planner")),
        }
    }

    fn get_view(&self, name: &str, as_of: Option<Epoch>) -> Result<AnswerStream> {
        let schema = wire_schema(&self.view(name)?.schema);
        let mut snapshot = self.reader.snapshot(&[name], as_of)?;
        let batches = snapshot.views.pop().unwrap_or_default();
        let answer = messages(schema, batches, point_metadata(snapshot.point)).map(|message| message.map_err(grpc_status));
        Ok(stream::iter(answer).boxed())
    }

    fn get_features(&self, ask: &FeaturesAsk) -> Result<AnswerStream> {
        let service = self.lookups.service(&ask.service)?;
        let rows = from_json(&ask.keys, &service.input)?;
        let answer = self.lookups.answer(&service, &rows, ask.read_mode()?, ask.status)?;
        let metadata = answer.metadata();
        let messages = messages(answer.rows.schema(), vec![answer.rows], metadata).map(|message| message.map_err(grpc_status));
        Ok(stream::iter(messages).boxed())
    }

    fn view(&self, name: &str) -> Result<CatalogView> {
        let mut views = self.reader.views();
        let known: Vec<String> = views.iter().map(|view| view.name.clone()).collect();
        let position = views.iter().position(|view| view.name == name);
        position.map(|position| views.swap_remove(position)).ok_or_else(|| {
            Error::invalid(format!("there is no view {name}; known: {}", if known.is_empty() { "none".into() } else { known.join(", ") }))
        })
    }
}
