-- The four streams from Kafka instead of files: `freshet run kafka pipeline.sql --var brokers=HOST:PORT`. The topics are those that fill/fill.sql
-- fills; they are read up to where they end at the start, so that the year is replayed as from files.

CREATE SOURCE schedules (
  flight_id VARCHAR NOT NULL, carrier VARCHAR, origin VARCHAR, dest VARCHAR, tailnum VARCHAR,
  distance DOUBLE, hour INT, weekday INT, month INT, sched_dep TIMESTAMP(3), ask_time TIMESTAMP(3),
  WATERMARK FOR ask_time
) WITH (connector = 'kafka', bootstrap.servers = '${brokers}', topic = 'schedules', scan.bounded.mode = 'latest-offset') FORMAT PLAIN ENCODE JSON;

CREATE SOURCE departures (
  flight_id VARCHAR NOT NULL, carrier VARCHAR, origin VARCHAR, dest VARCHAR, tailnum VARCHAR,
  dep_time TIMESTAMP(3), dep_delay DOUBLE,
  WATERMARK FOR dep_time
) WITH (connector = 'kafka', bootstrap.servers = '${brokers}', topic = 'departures', scan.bounded.mode = 'latest-offset') FORMAT PLAIN ENCODE JSON;

CREATE SOURCE arrivals (
  flight_id VARCHAR NOT NULL, arr_time TIMESTAMP(3), arr_delay DOUBLE,
  WATERMARK FOR arr_time
) WITH (connector = 'kafka', bootstrap.servers = '${brokers}', topic = 'arrivals', scan.bounded.mode = 'latest-offset') FORMAT PLAIN ENCODE JSON;

CREATE SOURCE weather (
  origin VARCHAR NOT NULL, observed_at TIMESTAMP(3),
  temp DOUBLE, humid DOUBLE, wind_speed DOUBLE, precip DOUBLE, pressure DOUBLE, visib DOUBLE,
  WATERMARK FOR observed_at
) WITH (connector = 'kafka', bootstrap.servers = '${brokers}', topic = 'weather', scan.bounded.mode = 'latest-offset') FORMAT PLAIN ENCODE JSON;
