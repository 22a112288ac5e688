-- Which machines shake or run hot? Machines publish readings over MQTT; this keeps their rolling features for lookups and says an alarm, over
-- MQTT too, as long as it holds.
--
-- A machine publishes to factory/<line>/<machine>/vibration and …/temperature, for example
--   mosquitto_pub -t factory/7/press/vibration -q 1 -m '{"at": "2026-01-01T08:00:00.000Z", "rms": 2.4}'
--   mosquitto_pub -t factory/7/press/temperature -q 1 -m '{"at": "2026-01-01T08:00:00.000Z", "celsius": 61.5}'
-- and whoever watches subscribes to alarms/#: an alarm is a retained message of its machine, and an empty one when it is over.
--
--   freshet run pipelines/machine_health --var broker=mqtt://127.0.0.1:1883
--   freshet features get machine_health --keys line=7,machine=press

SET clock = 'wall';

-- The levels of the topic say whose reading it is. The broker keeps what comes while this is away (qos 1, a session of a day).
CREATE SOURCE vibration (
  at TIMESTAMP(3) NOT NULL, rms DOUBLE,
  WATERMARK FOR at AS at - INTERVAL '5 seconds' LATENESS INTERVAL '10 minutes'
) INCLUDE level 2 AS line, INCLUDE level 3 AS machine
WITH (connector = 'mqtt', url = '${broker:-mqtt://127.0.0.1:1883}', topic = 'factory/+/+/vibration', qos = '1')
FORMAT PLAIN ENCODE JSON;

CREATE SOURCE temperature (
  at TIMESTAMP(3) NOT NULL, celsius DOUBLE,
  WATERMARK FOR at AS at - INTERVAL '5 seconds' LATENESS INTERVAL '10 minutes'
) INCLUDE level 2 AS line, INCLUDE level 3 AS machine
WITH (connector = 'mqtt', url = '${broker:-mqtt://127.0.0.1:1883}', topic = 'factory/+/+/temperature', qos = '1')
FORMAT PLAIN ENCODE JSON;

CREATE FEATURE VIEW vibration_load ENTITY (line, machine) TIMESTAMP at
  WINDOWS ('1 minute', '5 minutes', '15 minutes') AS
SELECT line, machine, count(*) AS vibration_readings, avg(rms) AS vibration_mean, max(rms) AS vibration_max, var(rms) AS vibration_variance
FROM vibration GROUP BY line, machine;

CREATE FEATURE VIEW temperature_load ENTITY (line, machine) TIMESTAMP at
  WINDOWS ('1 minute', '5 minutes', '15 minutes') AS
SELECT line, machine, avg(celsius) AS temperature_mean, max(celsius) AS temperature_max, var(celsius) AS temperature_variance
FROM temperature GROUP BY line, machine;

CREATE FEATURE SERVICE machine_health AS (vibration_load, temperature_load);

-- ISO 10816 calls 7.1 mm/s damaging. An alarm needs three readings of one minute, and ends by itself when they have left the minute.
CREATE MATERIALIZED VIEW alarms AS
SELECT line, machine, 'vibration' AS cause, avg(rms) AS level, count(*) AS readings
FROM vibration WHERE at > now() - INTERVAL '1 minute' GROUP BY line, machine
HAVING count(*) >= 3 AND avg(rms) > 7.1
UNION ALL
SELECT line, machine, 'temperature' AS cause, avg(celsius) AS level, count(*) AS readings
FROM temperature WHERE at > now() - INTERVAL '1 minute' GROUP BY line, machine
HAVING count(*) >= 3 AND avg(celsius) > 90.0;

CREATE SINK alarms_out FROM alarms
WITH (connector = 'mqtt', url = '${broker:-mqtt://127.0.0.1:1883}', topic = 'alarms/{line}/{machine}/{cause}', qos = '1', retain = 'true',
      primary_key = 'line, machine, cause')
FORMAT UPSERT ENCODE JSON;
