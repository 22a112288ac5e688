-- Where the four streams come from: the files that prepare.py writes. ${data} is their folder.

CREATE SOURCE schedules (
  flight_id VARCHAR NOT NULL, carrier VARCHAR, origin VARCHAR, dest VARCHAR, tailnum VARCHAR,
  distance DOUBLE, hour INT, weekday INT, month INT, sched_dep TIMESTAMP(3), ask_time TIMESTAMP(3),
  WATERMARK FOR ask_time
) WITH (connector = 'file', path = '${data}/schedules.parquet') FORMAT PLAIN ENCODE PARQUET;

CREATE SOURCE departures (
  flight_id VARCHAR NOT NULL, carrier VARCHAR, origin VARCHAR, dest VARCHAR, tailnum VARCHAR,
  dep_time TIMESTAMP(3), dep_delay DOUBLE,
  WATERMARK FOR dep_time
) WITH (connector = 'file', path = '${data}/departures.parquet') FORMAT PLAIN ENCODE PARQUET;

-- The delayed feedback: when the flight arrived, and how late.
CREATE SOURCE arrivals (
  flight_id VARCHAR NOT NULL, arr_time TIMESTAMP(3), arr_delay DOUBLE,
  WATERMARK FOR arr_time
) WITH (connector = 'file', path = '${data}/arrivals.parquet') FORMAT PLAIN ENCODE PARQUET;

CREATE SOURCE weather (
  origin VARCHAR NOT NULL, observed_at TIMESTAMP(3),
  temp DOUBLE, humid DOUBLE, wind_speed DOUBLE, precip DOUBLE, pressure DOUBLE, visib DOUBLE,
  WATERMARK FOR observed_at
) WITH (connector = 'file', path = '${data}/weather.parquet') FORMAT PLAIN ENCODE PARQUET;
