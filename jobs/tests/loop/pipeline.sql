-- The whole loop, small: will a ride asked for now be late? Late rides are those of late hours.
SET clock = 'event';

CREATE SOURCE asks (id VARCHAR NOT NULL, city VARCHAR, hour DOUBLE, at TIMESTAMP(3), WATERMARK FOR at)
WITH (connector = 'file', path = '${data}/asks.jsonl') FORMAT PLAIN ENCODE JSON;

CREATE SOURCE rides (city VARCHAR, fare DOUBLE, at TIMESTAMP(3), WATERMARK FOR at)
WITH (connector = 'file', path = '${data}/rides.jsonl') FORMAT PLAIN ENCODE JSON;

CREATE SOURCE outcomes (id VARCHAR NOT NULL, late BOOLEAN, known_at TIMESTAMP(3), WATERMARK FOR known_at)
WITH (connector = 'file', path = '${data}/outcomes.jsonl') FORMAT PLAIN ENCODE JSON;

CREATE FEATURE VIEW city_rides ENTITY (city) TIMESTAMP at WINDOWS ('1 day') AS
SELECT city, count(*) AS rides, avg(fare) AS fare FROM rides GROUP BY city;

CREATE FEATURE SERVICE ride_features REQUEST (hour DOUBLE) AS (city_rides, hour);

CREATE MODEL lateness INPUT FEATURES ride_features OUTPUT (p_late DOUBLE);

CREATE MATERIALIZED VIEW predictions AS
SELECT a.id, a.at, f.*, PREDICT(lateness, f.*) AS p_late, MODEL_VERSION(lateness) AS version
FROM asks a LEFT JOIN FEATURES(ride_features) FOR SYSTEM_TIME AS OF now() AS f USING (city, hour);

CREATE TRAINING SET late_train ID (id) TIME (at) LABEL (late) AS
SELECT a.id, a.at, f.*, o.late
FROM asks a JOIN outcomes o USING (id)
LEFT JOIN FEATURES(ride_features) FOR SYSTEM_TIME AS OF arrival(a) AS f USING (city, hour);

CREATE RETRAINING JOB retrain FOR lateness
  TRAINING SET late_train LAST INTERVAL '8 days' HOLDOUT LAST INTERVAL '2 days' MIN ROWS 20
  RUN COMMAND 'exec ${python} train.py ${mode}' WITH (timeout = '1 minute')
  FIRST AT TIMESTAMP '2013-01-11 00:00:00'
  WHEN EVERY INTERVAL '10 days' SINCE LAST RUN
  VALIDATE auc ON HOLDOUT AGAINST champion MARGIN 0.0
  ROLLOUT IMMEDIATE;

CREATE SINK predictions_out FROM predictions WITH (connector = 'file', path = '${out}/predictions.jsonl') FORMAT DEBEZIUM ENCODE JSON;
