-- Will this flight arrive more than 15 minutes late? Asked one hour before its scheduled departure. The whole loop: features, predictions,
-- their quality, drift, and a model that is trained again when it is time.

SET clock = 'event';

CREATE FEATURE VIEW origin_load ENTITY (origin) TIMESTAMP dep_time
  WINDOWS ('1 hour', '6 hours', '24 hours', '7 days') AS
SELECT origin, count(*) AS origin_departures, avg(dep_delay) AS origin_delay
FROM departures GROUP BY origin;

CREATE FEATURE VIEW carrier_load ENTITY (carrier) TIMESTAMP dep_time
  WINDOWS ('1 hour', '6 hours', '24 hours', '7 days') AS
SELECT carrier, count(*) AS carrier_departures, avg(dep_delay) AS carrier_delay
FROM departures GROUP BY carrier;

CREATE FEATURE VIEW dest_load ENTITY (dest) TIMESTAMP dep_time
  WINDOWS ('1 hour', '6 hours', '24 hours', '7 days') AS
SELECT dest, count(*) AS dest_departures, avg(dep_delay) AS dest_delay
FROM departures GROUP BY dest;

CREATE FEATURE VIEW aircraft_load ENTITY (tailnum) TIMESTAMP dep_time
  WINDOWS ('1 hour', '6 hours', '24 hours', '7 days') AS
SELECT tailnum, count(*) AS aircraft_departures, avg(dep_delay) AS aircraft_delay
FROM departures GROUP BY tailnum;

CREATE FEATURE VIEW origin_weather ENTITY (origin) TIMESTAMP observed_at TTL INTERVAL '6 hours' AS
SELECT origin, temp, humid, wind_speed, precip, pressure, visib FROM weather;

CREATE FEATURE SERVICE delay_features REQUEST (distance DOUBLE, hour INT, weekday INT) AS
  (origin_load, carrier_load, dest_load, aircraft_load, origin_weather, distance, hour, weekday);

-- No FROM: until the first run below has ended there is no version, and scores are NULL.
CREATE MODEL arrival_delay INPUT FEATURES delay_features OUTPUT (p_late DOUBLE)
  WITH (device = 'cpu', missing = 'nan', on_version_change = 'keep');

-- p_late_frozen is what the first version would go on saying: what retraining is worth is the distance between the two.
CREATE MATERIALIZED VIEW predictions AS
SELECT s.flight_id, s.ask_time, s.month, f.*,
       PREDICT(arrival_delay, f.*) AS p_late, MODEL_VERSION(arrival_delay) AS model_version,
       PREDICT(arrival_delay, f.*, version => 1) AS p_late_frozen
FROM schedules s
LEFT JOIN FEATURES(delay_features) FOR SYSTEM_TIME AS OF now() AS f
  USING (origin, carrier, dest, tailnum, distance, hour, weekday);

-- The same features, as serving would have answered then, beside what came of the flight.
CREATE TRAINING SET delay_train ID (flight_id) TIME (ask_time) LABEL (late) WITH (mode = 'as_served') AS
SELECT s.flight_id, s.ask_time, f.*, (a.arr_delay > 15) AS late
FROM schedules s JOIN arrivals a USING (flight_id)
LEFT JOIN FEATURES(delay_features) FOR SYSTEM_TIME AS OF arrival(s) AS f
  USING (origin, carrier, dest, tailnum, distance, hour, weekday);

CREATE MATERIALIZED VIEW quality AS
SELECT p.month, count(*) AS flights,
       auc(p.p_late, a.arr_delay > 15) AS auc_live, auc(p.p_late_frozen, a.arr_delay > 15) AS auc_frozen,
       log_loss(p.p_late, a.arr_delay > 15) AS log_loss_live, log_loss(p.p_late_frozen, a.arr_delay > 15) AS log_loss_frozen
FROM predictions p JOIN arrivals a USING (flight_id)
WHERE p.p_late IS NOT NULL AND a.arr_delay IS NOT NULL GROUP BY p.month;

CREATE DRIFT MONITOR delay_drift ON predictions (p_late, origin_delay_24h, wind_speed) TIME (ask_time)
  USING psi, ks REFERENCE MODEL arrival_delay
  WINDOW INTERVAL '28 days' EVERY INTERVAL '1 day' MIN ROWS 5000
  DRIFTED WHEN psi(p_late) > 0.1 FOR 3 EVALUATIONS;

CREATE RETRAINING JOB retrain_delay FOR arrival_delay
  TRAINING SET delay_train LAST INTERVAL '120 days' HOLDOUT LAST INTERVAL '7 days' MIN ROWS 15000
  RUN COMMAND '${python:-python3} train.py' WITH (timeout = '10 minutes')
  FIRST AT TIMESTAMP '2013-02-01 05:00:00'
  WHEN DRIFT delay_drift OR EVERY INTERVAL '60 days' SINCE LAST RUN
  COOLDOWN INTERVAL '14 days'
  VALIDATE auc ON HOLDOUT AGAINST champion MARGIN 0.0
  ROLLOUT IMMEDIATE;

CREATE SINK predictions_out FROM predictions
WITH (connector = 'file', path = '${out:-.freshet/out}/predictions.jsonl') FORMAT DEBEZIUM ENCODE JSON;
