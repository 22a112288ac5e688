-- Will this flight arrive more than 15 minutes late? Asked one hour before its scheduled departure.

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

CREATE MATERIALIZED VIEW questions AS
SELECT s.flight_id, s.ask_time, s.month, f.*
FROM schedules s
LEFT JOIN FEATURES(delay_features) FOR SYSTEM_TIME AS OF now() AS f
  USING (origin, carrier, dest, tailnum, distance, hour, weekday);

-- Two ways to count the same departures: read in one request, their totals are equal.
CREATE MATERIALIZED VIEW departures_by_origin AS
SELECT origin, count(*) AS departures FROM departures GROUP BY origin;

CREATE MATERIALIZED VIEW departures_by_carrier AS
SELECT carrier, count(*) AS departures FROM departures GROUP BY carrier;

CREATE MATERIALIZED VIEW monthly_outcomes AS
SELECT s.month, count(*) AS flights, count(*) FILTER (WHERE a.arr_delay > 15) AS late, avg(a.arr_delay) AS arr_delay_mean
FROM schedules s JOIN arrivals a USING (flight_id)
GROUP BY s.month;

CREATE SINK questions_out FROM questions
WITH (connector = 'file', path = '${out:-.freshet/out}/questions.jsonl') FORMAT DEBEZIUM ENCODE JSON;
