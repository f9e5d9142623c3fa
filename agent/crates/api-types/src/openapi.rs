//! Every operation of the API, and the OpenAPI document.
//!
//! Schemas are derived from the types; paths, parameters and sockets are in the table
//! [`OPERATIONS`]. A test compares the server's routes with it.

mod operations;

use std::borrow::Cow;

use utoipa::ToSchema;
use utoipa::openapi::path::{
    HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn, PathItem, PathsBuilder,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Ref,
    RefOr, Required, Response, ResponseBuilder, ResponsesBuilder, Schema, ServerBuilder,
};

pub use self::operations::OPERATIONS;
use super::Error;

/// One method of one path.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// The method, in capitals.
    pub method: &'static str,
    /// The path.
    pub path: &'static str,
    /// The socket that serves it.
    pub access: Access,
    /// Its name in generated clients.
    id: &'static str,
    summary: &'static str,
    query: &'static [Parameter],
    request: Option<Shape>,
    answer: Answer,
}

/// Where an operation is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Over the network and over the control socket.
    Network,
    /// Over the control socket of the host alone.
    ControlSocket,
}

/// A part of the query string.
#[derive(Clone, Copy, Debug)]
struct Parameter {
    name: &'static str,
    description: &'static str,
    schema: fn() -> RefOr<Schema>,
}

/// A type of this crate.
#[derive(Clone, Copy, Debug)]
struct Shape {
    name: fn() -> Cow<'static, str>,
    collect: fn(&mut Vec<(String, RefOr<Schema>)>),
}

/// The response of an operation.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Json(Shape),
    /// Only the media type is described.
    Media(&'static str),
}

/// The OpenAPI document of a server that serves the API below `base`, which is empty or a path
/// like `/portolan`.
pub fn document(base: &str) -> OpenApi {
    let mut schemas = Vec::new();
    collect::<Error>(&mut schemas);
    let mut paths = PathsBuilder::new();
    for operation in OPERATIONS {
        let shapes = operation.request.into_iter().chain(operation.answer.shape());
        shapes.for_each(|shape| (shape.collect)(&mut schemas));
        paths = paths.path(operation.path, operation.item());
    }
    let license = LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build();
    let info = InfoBuilder::new()
        .title("Portolan")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "The HTTP API of one agent. Times are RFC 3339 in UTC, durations are seconds, sizes are bytes. Operations tagged `control` are served on the agent's control socket only (a Unix socket of the host).",
        ))
        .license(Some(license));
    let url = if base.is_empty() { "/" } else { base };
    OpenApiBuilder::new()
        .info(info.build())
        .servers(Some([ServerBuilder::new().url(url).build()]))
        .paths(paths.build())
        .components(Some(ComponentsBuilder::new().schemas_from_iter(schemas).build()))
        .build()
}

fn collect<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
    schemas.push((T::name().into_owned(), T::schema()));
    T::schemas(schemas);
}

// === impl Operation ===

impl Operation {
    const fn with(mut self, query: &'static [Parameter]) -> Self {
        self.query = query;
        self
    }

    fn item(&self) -> PathItem {
        let method = match self.method {
            "POST" => HttpMethod::Post,
            "DELETE" => HttpMethod::Delete,
            _ => HttpMethod::Get,
        };
        let tag = match self.access {
            Access::Network => "read",
            Access::ControlSocket => "control",
        };
        let mut responses = ResponsesBuilder::new().response("200", self.answer.response());
        if let Answer::Json(_) = self.answer {
            let error = Answer::Json(Shape::of::<Error>()).content();
            let error = ResponseBuilder::new()
                .description("An error, in a sentence")
                .content("application/json", error.build())
                .build();
            responses = responses.response("4XX", error.clone()).response("5XX", error);
        }
        let mut operation = OperationBuilder::new()
            .operation_id(Some(self.id))
            .summary(Some(self.summary))
            .tag(tag)
            .responses(responses);
        for Parameter { name, description, schema } in self.query {
            operation = operation.parameter(
                ParameterBuilder::new()
                    .name(*name)
                    .parameter_in(ParameterIn::Query)
                    .required(Required::False)
                    .description(Some(*description))
                    .schema(Some(schema())),
            );
        }
        if let Some(request) = self.request {
            let content = Answer::Json(request).content();
            let body = RequestBodyBuilder::new()
                .content("application/json", content.build())
                .required(Some(Required::True));
            operation = operation.request_body(Some(body.build()));
        }
        PathItem::new(method, operation)
    }
}

// === impl Shape ===

impl Shape {
    const fn of<T: ToSchema>() -> Self {
        Self { name: T::name, collect: collect::<T> }
    }
}

// === impl Answer ===

impl Answer {
    const fn shape(self) -> Option<Shape> {
        match self {
            Self::Json(shape) => Some(shape),
            Self::Media(_) => None,
        }
    }

    fn content(self) -> ContentBuilder {
        let reference = |shape: Shape| RefOr::from(Ref::from_schema_name((shape.name)()));
        ContentBuilder::new().schema(self.shape().map(reference))
    }

    fn response(self) -> Response {
        let media = match self {
            Self::Json(_) => "application/json",
            Self::Media(media) => media,
        };
        ResponseBuilder::new().description("OK").content(media, self.content().build()).build()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn operations_are_unique_and_each_is_in_the_document() {
        let document = serde_json::to_value(document("")).expect("JSON");
        let mut ids = BTreeSet::new();
        for operation in OPERATIONS {
            let Operation { method, path, id, .. } = operation;
            assert!(ids.insert(id), "{id} twice");
            let found = &document["paths"][path][method.to_lowercase()];
            assert_eq!(found["operationId"], *id, "{method} {path}");
        }
    }

    #[test]
    fn the_server_of_the_document_is_the_path_it_is_served_below() {
        let url = |base: &str| {
            let document = serde_json::to_value(document(base)).expect("JSON");
            document["servers"][0]["url"].clone()
        };
        assert_eq!(url(""), "/");
        assert_eq!(url("/behind/a/proxy"), "/behind/a/proxy");
    }

    #[test]
    fn every_reference_leads_to_a_schema() {
        fn references<'a>(value: &'a serde_json::Value, found: &mut BTreeSet<&'a str>) {
            match value {
                serde_json::Value::Object(fields) => {
                    for (name, value) in fields {
                        if let ("$ref", Some(target)) = (name.as_str(), value.as_str()) {
                            found.insert(target);
                        }
                        references(value, found);
                    }
                }
                serde_json::Value::Array(values) => {
                    for value in values {
                        references(value, found);
                    }
                }
                _ => {}
            }
        }
        let document = serde_json::to_value(document("")).expect("JSON");
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert!(found.len() > 20, "{found:?}");
        for target in found {
            let pointer = target.strip_prefix('#').expect("within the document");
            assert!(document.pointer(pointer).is_some(), "{target} leads nowhere");
        }
    }
}
