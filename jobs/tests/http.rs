use serde_json::Value;

use crate::running::Running;

fn json(answer: &(u16, String)) -> Value {
    serde_json::from_str(&answer.1).unwrap_or_else(|error| panic!("{error}: {}", answer.1))
}

#[test]
fn health_readiness_status_and_page_answer() {
    let running = Running::start(&[]);
    assert_eq!(running.get("/healthz").0, 200);
    let ready = running.get("/readyz");
    assert_eq!((ready.0, json(&ready)["ready"].clone()), (200, Value::Bool(true)));
    let status = json(&running.get("/v1/status"));
    assert_eq!(status["pipeline"], "pipeline");
    assert_eq!(status["clock"], "event");
    assert_eq!(status["events"], 4);
    assert_eq!(status["failure"], Value::Null);
    assert!(status["views"].as_array().unwrap().iter().any(|view| view["name"] == "by_city" && view["closed"].is_u64()), "{status}");
    let page = running.get("/");
    assert!(page.0 == 200 && page.1.contains("<title>Freshet</title>"));
    assert!(running.get("/page.js").1.contains("/v1/status"));
    assert_eq!(running.get("/page.css").0, 200);
}

#[test]
fn metrics_follow_the_text_format() {
    let running = Running::start(&[]);
    let (code, text) = running.get("/metrics");
    assert_eq!(code, 200);
    for metric in [
        "freshet_closed_lag_ms{view=\"by_city\"}",
        "freshet_source_lag_ms{source=\"rides\"}",
        "freshet_events_total 4",
        "freshet_queue_limit",
        "freshet_lookup_seconds_bucket",
        "process_resident_memory_bytes",
    ] {
        assert!(text.contains(metric), "{metric} is not in\n{text}");
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        assert!(line.rsplit_once(' ').is_some_and(|(_, value)| value.parse::<f64>().is_ok()), "{line}");
    }
}

#[test]
fn online_features_have_feasts_shape_and_one_read_point() {
    let running = Running::start(&[]);
    let request = r#"{"feature_service": "ride_features", "entities": {"city": ["Genf", "Rom"], "driver": [7, 99], "hour": [10, 11]}}"#;
    let answer = running.post("/get-online-features", request);
    assert_eq!(answer.0, 200, "{}", answer.1);
    let answer = json(&answer);
    let names = answer["metadata"]["feature_names"].as_array().unwrap();
    let result = |name: &str| &answer["results"][names.iter().position(|found| found == name).unwrap()];
    assert_eq!(result("city")["values"], serde_json::json!(["Genf", "Rom"]));
    assert_eq!(result("fare_mean_1h")["values"], serde_json::json!([5.25, null]));
    assert_eq!(result("fare_mean_1h")["statuses"], serde_json::json!(["PRESENT", "NOT_FOUND"]));
    assert_eq!(result("fare_mean_1h")["event_timestamps"][0], "2025-01-01T10:45:00Z");
    assert_eq!(result("hour")["values"], serde_json::json!([10, 11]));
    assert_eq!(answer["metadata"]["q"], 1_735_730_100_001_u64);
    assert_eq!(answer["metadata"]["q"], answer["metadata"]["s"]);
}

#[test]
fn wrong_requests_get_a_4xx_that_names_the_way_out() {
    let running = Running::start(&[]);
    for (body, code, words) in [
        ("{", 400, "not understood"),
        ("{}", 400, "feature_service is missing"),
        (r#"{"feature_service": "taxi", "entities": {}}"#, 400, "there is no feature service taxi; known: ride_features"),
        (r#"{"feature_service": "ride_features", "entities": {"city": ["Bern"]}}"#, 400, "column driver is missing"),
        (r#"{"feature_service": "ride_features", "entities": {"city": ["Bern"], "driver": ["x"], "hour": [1]}}"#, 400, "column driver is Int64"),
        (r#"{"features": ["a:b"], "entities": {}}"#, 400, "name a feature_service"),
    ] {
        let answer = running.post("/get-online-features", body);
        assert_eq!(answer.0, code, "{}", answer.1);
        let message = json(&answer)["error"]["message"].as_str().unwrap().to_string();
        assert!(message.contains(words), "{message}");
    }
    let large = running.post("/get-online-features", &" ".repeat(5 << 20));
    assert_eq!(large.0, 413, "{}", large.1);
    assert_eq!(running.get("/nowhere").0, 404);
    assert_eq!(running.get("/get-online-features").0, 405);
}
