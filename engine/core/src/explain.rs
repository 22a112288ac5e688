//! The stable text of a plan, which golden tests, EXPLAIN PLAN and the fingerprint share. In: a plan. Out: one line a node.

use std::fmt::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::over;
use crate::{
    AggregateCall, AggregateParameter, ClockKind, DriftSpec, ExprRef, FeatureSpec, LatestSpec, LetterLimits, LookupTime, ModelDef, Node, Op, Plan,
    PredictCall, PredictOutput, PredictRoute, RecursionBody, RetrainingDef, RollingSpec, SortKey, SourceDef, TimeLimits, ViewKind, Window, Windows,
    display, hash_bytes,
};

/// One line per node, then sources, views, services and sinks. Two plans with the same text do the same.
pub fn explain(plan: &Plan) -> String {
    let mut text = String::new();
    let clock = match plan.clock {
        ClockKind::Wall => "wall",
        ClockKind::Event => "event",
    };
    writeln!(text, "clock {clock}").expect("a string takes every write");
    for (index, node) in plan.nodes.iter().enumerate() {
        let inputs: Vec<String> = node.inputs.iter().map(|input| format!("%{}", input.0)).collect();
        let inputs = if inputs.is_empty() { String::new() } else { format!(" {}", inputs.join(", ")) };
        let kind = if node.append_only { "append-only" } else { "changing" };
        writeln!(text, "%{index} = {}{inputs} -> ({}) {kind}", operation(plan, &node.op), columns(&node.schema)).expect("a string takes every write");
        if let Op::Recursive { body, .. } = &node.op {
            round(&mut text, plan, body);
        }
    }
    for view in &plan.views {
        let kind = match view.kind {
            ViewKind::Materialized => "view",
            ViewKind::Feature => "feature view",
        };
        writeln!(text, "{kind} {} = %{}", view.name, view.node.0).expect("a string takes every write");
    }
    for service in &plan.services {
        let parts: Vec<&str> = service.parts.iter().map(|part| part.view.as_str()).collect();
        writeln!(text, "service {} = ({}) of ({})", service.name, columns(&service.schema), parts.join(", ")).expect("a string takes every write");
    }
    for sink in &plan.sinks {
        let key: Vec<&str> = sink.key.iter().map(|column| sink.schema.field(*column).name().as_str()).collect();
        let key = if key.is_empty() { String::new() } else { format!(" key=[{}]", key.join(", ")) };
        writeln!(text, "sink {} = %{} to {} {:?} {:?}{key}", sink.name, sink.node.0, sink.connector, sink.format, sink.encode)
            .expect("a string takes every write");
    }
    plan.models.iter().for_each(|def| writeln!(text, "{}", model(def)).expect("a string takes every write"));
    for set in &plan.training_sets {
        writeln!(text, "training set {} id {} time {} label {} {:?} = ({})", set.name, set.id, set.time, set.label, set.mode, columns(&set.schema))
            .expect("a string takes every write");
    }
    plan.retraining.iter().for_each(|job| writeln!(text, "{}", retraining(plan, job)).expect("a string takes every write"));
    text
}

/// The nodes of a recursion's body, which have numbers of their own.
fn round(text: &mut String, plan: &Plan, body: &RecursionBody) {
    for (index, node) in body.nodes.iter().enumerate() {
        let inputs: Vec<String> = node.inputs.iter().map(|input| format!(" &{}", input.0)).collect();
        writeln!(text, "    &{index} = {}{} -> ({})", operation(plan, &node.op), inputs.join(","), columns(&node.schema))
            .expect("a string takes every write");
    }
}

fn model(model: &ModelDef) -> String {
    let list = |fields: &[arrow::datatypes::Field]| {
        fields.iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect::<Vec<_>>().join(", ")
    };
    let from = model.from.as_ref().map_or(String::new(), |from| format!(" from '{from}'"));
    let references = if model.references.is_empty() { String::new() } else { format!(" reference of ({})", model.references.join(", ")) };
    format!("model {} ({}) -> ({}) missing={:?}{from}{references}", model.name, list(&model.inputs), list(&model.outputs), model.missing)
}

/// The trainer's limits are left out: changing them changes no state.
fn retraining(plan: &Plan, job: &RetrainingDef) -> String {
    let triggers: Vec<String> = job.triggers.iter().map(|trigger| format!("{trigger:?}")).collect();
    format!(
        "retraining {} of {} on {} last={} holdout={} gap={} delay={} min={} run '{}' first={:?} when [{}] cooldown={} validate={:?} grids={:?}",
        job.name,
        plan.models[job.model].name,
        plan.training_sets[job.training_set].name,
        duration(job.last_ms as i64),
        duration(job.holdout_ms as i64),
        duration(job.gap_ms as i64),
        duration(job.delay_ms as i64),
        job.rows_min,
        job.command,
        job.first_at.map(|at| at.0),
        triggers.join(", "),
        duration(job.cooldown_ms as i64),
        job.validation,
        job.grids_ms,
    )
}

fn predict(plan: &Plan, call: &PredictCall) -> String {
    let route = match call.route {
        PredictRoute::Live => String::new(),
        PredictRoute::Version(version) => format!(" version {version}"),
        PredictRoute::Challenger => " challenger".into(),
    };
    let name = &plan.models[call.model].name;
    match call.output {
        PredictOutput::Score => format!("{name}{route} of {:?}", call.arguments),
        PredictOutput::Version => format!("version of {name}{route}"),
    }
}

fn drift(plan: &Plan, spec: &DriftSpec) -> String {
    let methods: Vec<&str> = spec.methods.iter().map(|method| method.sql()).collect();
    let conditions: Vec<String> = spec
        .conditions
        .iter()
        .map(|condition| {
            let than = if condition.inclusive { ">=" } else { ">" };
            format!("{}({}) {than} {} for {}", condition.method.sql(), spec.names[condition.column], condition.threshold, condition.evaluations)
        })
        .collect();
    format!(
        "Drift {:?} scores {:?} of [{}] time #{} against {} window={} every={} min={} fires [{}]",
        spec.columns,
        spec.columns.iter().zip(&spec.scores).filter(|(_, is_score)| **is_score).map(|(column, _)| *column).collect::<Vec<_>>(),
        methods.join(", "),
        spec.time,
        plan.models[spec.model].name,
        duration(spec.window_ms as i64),
        duration(spec.every_ms as i64),
        spec.rows_min,
        conditions.join(", "),
    )
}

/// A 64-bit hash of the plan's text (FNV-1a): equal on every machine and in every process.
pub fn fingerprint(plan: &Plan) -> u64 {
    explain(plan).bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// True if two nodes do the same with the same inputs, and call their columns the same.
pub fn do_the_same(plan: &Plan, left: &Node, right: &Node) -> bool {
    std::mem::discriminant(&left.op) == std::mem::discriminant(&right.op)
        && left.inputs == right.inputs
        && left.schema == right.schema
        && operation(plan, &left.op) == operation(plan, &right.op)
}

fn columns(schema: &Schema) -> String {
    let columns: Vec<String> = schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
    columns.join(", ")
}

fn operation(plan: &Plan, op: &Op) -> String {
    match op {
        Op::Source { source } => source_line(&plan.sources[*source]),
        Op::Upsert { key } => format!("Upsert by {key:?}"),
        Op::Project { exprs } => format!("Project [{}]", list(exprs)),
        Op::Filter { conjuncts } => format!("Filter [{}]", list(conjuncts)),
        Op::TemporalFilter { bounds } => {
            let bounds: Vec<String> =
                bounds.iter().map(|bound| format!("#{} + {} ns {} now", bound.column, bound.offset_ns, bound.comparison.sql())).collect();
            format!("TemporalFilter [{}]", bounds.join(", "))
        }
        Op::Join { kind, left_keys, right_keys, nulls_equal, residual } => {
            let keys: Vec<String> = left_keys.iter().zip(right_keys).map(|(left, right)| format!("#{left} = #{right}")).collect();
            let nulls = if *nulls_equal { " nulls equal" } else { "" };
            let residual = if residual.is_empty() { String::new() } else { format!(" where [{}]", list(residual)) };
            format!("{} [{}]{nulls}{residual}", kind.name(), keys.join(", "))
        }
        Op::Aggregate { keys, calls } => {
            let calls: Vec<String> = calls.iter().map(call).collect();
            format!("Aggregate by {keys:?} [{}]", calls.join(", "))
        }
        Op::Asof { left_keys, right_keys, left_time, right_time, comparison, outer } => {
            let keys: Vec<String> = left_keys.iter().zip(right_keys).map(|(left, right)| format!("#{left} = #{right}")).collect();
            let outer = if *outer { " outer" } else { "" };
            format!("Asof [{}] #{left_time} {} #{right_time}{outer}", keys.join(", "), comparison.sql())
        }
        Op::LookupJoin { left_keys, right_keys, at, outer } => {
            let keys: Vec<String> = left_keys.iter().zip(right_keys).map(|(left, right)| format!("#{left} = #{right}")).collect();
            let at = at.map_or(String::new(), |at| format!(" at #{at}"));
            format!("LookupJoin [{}]{at}{}", keys.join(", "), if *outer { " outer" } else { "" })
        }
        Op::Top { partition, order, rank, offset, limit, number } => {
            let numbered = if *number { " numbered" } else { "" };
            let (first, last) = (offset + 1, offset.saturating_add(*limit));
            format!("Top by {partition:?} order [{}] {} {first}..={last}{numbered}", over::keys(order), rank.sql())
        }
        Op::Over { partition, order, calls } => {
            let calls: Vec<String> = calls.iter().map(over::call).collect();
            format!("Over by {partition:?} order [{}] [{}]", over::keys(order), calls.join(", "))
        }
        Op::Union => "Union".into(),
        Op::SingleRow => "SingleRow".into(),
        Op::Values { rows } => values(rows),
        Op::Unnest { exprs, lists } => format!("Unnest {lists:?} of [{}]", list(exprs)),
        Op::SetOperation { operation } => format!("SetOperation {}", operation.sql()),
        Op::Feature { spec: FeatureSpec::Rolling(spec), eager } => rolling(spec, *eager),
        Op::Feature { spec: FeatureSpec::Latest(spec), eager } => latest(spec, *eager),
        Op::Lookup { parts, at } => {
            let parts: Vec<String> = parts.iter().map(|part| format!("{:?} -> {:?}", part.keys, part.columns)).collect();
            let at = match at {
                LookupTime::Now => String::new(),
                LookupTime::EventTime { column: Some(column) } => format!(" at #{column} in hindsight"),
                LookupTime::EventTime { column: None } => " at arrival in hindsight".into(),
                LookupTime::AsServed { column } => format!(" at #{column} as served"),
            };
            format!("Lookup [{}]{at}", parts.join(", "))
        }
        Op::Predict { calls } => {
            let calls: Vec<String> = calls.iter().map(|call| predict(plan, call)).collect();
            format!("Predict [{}]", calls.join(", "))
        }
        Op::Windows { time, windows } => match windows {
            Windows::Hop { size, slide, offset } => format!("Windows #{time} size={size} slide={slide} offset={offset}"),
            Windows::Cumulate { size, step, offset } => format!("Windows #{time} size={size} cumulating step={step} offset={offset}"),
        },
        Op::Session { time, gap, keys } => format!("Session #{time} gap={gap} by {keys:?}"),
        Op::Arrival => "Arrival".into(),
        Op::Gate { end, view } => format!("Gate #{end}, late rows to late({view})"),
        Op::EmitOnClose { end } => format!("EmitOnClose #{end}"),
        Op::EmitEvery { every_ms } => format!("EmitEvery {}", duration(*every_ms as i64)),
        Op::Drift { spec } => drift(plan, spec),
        Op::Recursive { distinct, .. } => format!("Recursive{}", if *distinct { " distinct" } else { "" }),
        Op::Argument { index: 0 } => "Round before".into(),
        Op::Argument { index } => format!("Input {index}"),
    }
}

/// What differs from the default is said: the declared times, what fills columns, and how far times may stray.
fn source_line(source: &SourceDef) -> String {
    let column = |index: usize| source.schema.field(index).name();
    let mut text = format!("Source {}", source.name);
    let mut say = |name: &str, value: String| write!(text, " {name}={value}").expect("a string takes every write");
    if let Some(index) = source.event_time {
        say("watermark", column(index).clone());
    }
    if source.watermark_delay_ms > 0 {
        say("delay", duration(source.watermark_delay_ms as i64));
    }
    if let Some(index) = source.arrival {
        say("arrival", column(index).clone());
    }
    if let Some(lateness) = source.lateness_ms {
        say("lateness", duration(lateness as i64));
    }
    let (limits, usual) = (source.limits, TimeLimits::default());
    if limits.idle_ms != usual.idle_ms {
        say("idle", limits.idle_ms.map_or("none".to_string(), |ms| duration(ms as i64)));
    }
    for (name, limit, usual) in [("max_jump", limits.max_jump_ms, usual.max_jump_ms), ("max_skew", limits.max_skew_ms, usual.max_skew_ms)] {
        if limit != usual {
            say(name, duration(limit as i64));
        }
    }
    let (letters, usual) = (source.letters, LetterLimits::default());
    if letters.bytes_max != usual.bytes_max {
        say("max_dead_letter_bytes", letters.bytes_max.to_string());
    }
    if let Some(age_ms) = letters.age_ms {
        say("max_dead_letter_age", duration(age_ms as i64));
    }
    if !source.metadata.is_empty() {
        let filled: Vec<String> = source.metadata.iter().map(|one| format!("{} from {}", column(one.column), one.name)).collect();
        say("metadata", format!("[{}]", filled.join(", ")));
    }
    if !source.computed.is_empty() {
        let computed: Vec<String> = source.computed.iter().map(|one| format!("{} = {}", column(one.column), one.expr.sql())).collect();
        say("computed", format!("[{}]", computed.join(", ")));
    }
    if source.is_table() {
        // Other rows of the script are another pipeline: a checkpoint holds these.
        let rows: usize = source.rows.iter().map(|rows| rows.num_rows()).sum();
        say("rows", format!("{rows}/{:016x}", content_hash(source)));
    }
    text
}

/// Of the rows that the script inserts, in their order.
fn content_hash(source: &SourceDef) -> u64 {
    let mut hash = 0;
    for rows in &source.rows {
        for column in rows.columns() {
            for text in display::texts(column).unwrap_or_default() {
                let text = text.map_or("n".to_string(), |text| format!("v{text}"));
                hash = hash_bytes(format!("{hash:x} {text}").as_bytes());
            }
        }
    }
    hash
}

fn rolling(spec: &RollingSpec, eager: bool) -> String {
    let aggregates: Vec<String> = spec
        .aggregates
        .iter()
        .map(|aggregate| {
            let argument = aggregate.argument.map_or("*".to_string(), |argument| format!("#{argument}"));
            let filter = aggregate.filter.map_or(String::new(), |filter| format!(" if #{filter}"));
            format!("{}({argument}){filter} in {}", aggregate.function.sql(), window(&aggregate.window, spec.include_now))
        })
        .collect();
    let features: Vec<String> = spec.features.iter().map(|feature| format!("{} = {}", feature.name, feature.expr.sql())).collect();
    let horizon = FeatureSpec::Rolling(spec.clone()).horizon_ms().map_or("for ever".to_string(), |ms| duration(ms as i64));
    format!(
        "Rolling by {:?} time #{} [{}] features [{}] known={horizon}{}{}",
        spec.entity,
        spec.time,
        aggregates.join(", "),
        features.join(", "),
        age_and_hop(spec.ttl_ms, spec.hop_ms),
        if eager { " eager" } else { "" },
    )
}

fn latest(spec: &LatestSpec, eager: bool) -> String {
    let now = if spec.include_now { " include_now" } else { "" };
    let eager = if eager { " eager" } else { "" };
    format!("Latest by {:?} time #{} features {:?}{}{now}{eager}", spec.entity, spec.time, spec.features, age_and_hop(spec.ttl_ms, None))
}

fn age_and_hop(ttl_ms: Option<u64>, hop_ms: Option<u64>) -> String {
    let mut text = String::new();
    if let Some(ttl) = ttl_ms.filter(|ttl| *ttl > 0) {
        write!(text, " ttl={}", duration(ttl as i64)).expect("a string takes every write");
    }
    if let Some(hop) = hop_ms {
        write!(text, " hop={}", duration(hop as i64)).expect("a string takes every write");
    }
    text
}

/// The window as an interval, for example `(now − 1 h, now)`.
fn window(window: &Window, include_now: bool) -> String {
    let from = match window.lower {
        None => "(−∞".to_string(),
        Some(edge) => format!("{}now − {}", if edge.inclusive { '[' } else { '(' }, duration(edge.offset_ms)),
    };
    let until = match window.upper {
        None => format!("now{}", if include_now { ']' } else { ')' }),
        Some(edge) => format!("now − {}{}", duration(edge.offset_ms), if edge.inclusive { ']' } else { ')' }),
    };
    format!("{from}, {until}")
}

/// A duration in its largest whole unit: `7 d`, `90 s`, `1 ms`.
pub fn duration(ms: i64) -> String {
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)] {
        if ms != 0 && ms % size == 0 {
            return format!("{} {unit}", ms / size);
        }
    }
    format!("{ms} ms")
}

pub(crate) fn call(call: &AggregateCall) -> String {
    let second = call.second.map_or(String::new(), |second| format!(", #{second}"));
    let argument = call.argument.map_or("*".to_string(), |argument| format!("#{argument}{second}"));
    let parameter = match &call.parameter {
        None => String::new(),
        Some(AggregateParameter::Fraction(fraction)) => format!(", {}", fraction.get()),
        Some(AggregateParameter::Index(index)) => format!(", {index}"),
        Some(AggregateParameter::Text(text)) => format!(", '{}'", text.replace('\'', "''")),
    };
    let distinct = if call.distinct { "distinct " } else { "" };
    let order = if call.order_by.is_empty() { String::new() } else { format!(" order by {}", sort_keys(&call.order_by)) };
    let nulls = if call.ignore_nulls { " ignore nulls" } else { "" };
    let filter = call.filter.map_or(String::new(), |filter| format!(" if #{filter}"));
    format!("{}({distinct}{argument}{parameter}{order}){nulls}{filter}", call.function.sql())
}

/// For example `#1 desc, #0 nulls first`: ascending with NULLs last goes without saying.
fn sort_keys(keys: &[SortKey]) -> String {
    let key =
        |key: &SortKey| format!("#{}{}{}", key.column, if key.descending { " desc" } else { "" }, if key.nulls_first { " nulls first" } else { "" });
    keys.iter().map(key).collect::<Vec<_>>().join(", ")
}

fn list(exprs: &[ExprRef]) -> String {
    exprs.iter().map(|expr| expr.sql()).collect::<Vec<_>>().join(", ")
}

/// All of them: they are part of what the plan says.
fn values(rows: &RecordBatch) -> String {
    let cell = |row: usize, column: usize| {
        ArrayFormatter::try_new(rows.column(column), &FormatOptions::default().with_null("NULL"))
            .map_or_else(|error| error.to_string(), |cells| cells.value(row).to_string())
    };
    let row = |row: usize| format!("({})", (0..rows.num_columns()).map(|column| cell(row, column)).collect::<Vec<_>>().join(", "));
    format!("Values [{}]", (0..rows.num_rows()).map(row).collect::<Vec<_>>().join(", "))
}
