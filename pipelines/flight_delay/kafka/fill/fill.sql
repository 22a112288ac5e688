-- The replayer: writes the four files, keyed, to Kafka. `freshet run ../../sources.sql fill.sql --var data=FOLDER --var brokers=HOST:PORT`.
SET clock = 'event';

CREATE MATERIALIZED VIEW all_schedules AS SELECT * FROM schedules;
CREATE MATERIALIZED VIEW all_departures AS SELECT * FROM departures;
CREATE MATERIALIZED VIEW all_arrivals AS SELECT * FROM arrivals;
CREATE MATERIALIZED VIEW all_weather AS SELECT * FROM weather;

CREATE SINK schedules_topic FROM all_schedules
WITH (connector = 'kafka', bootstrap.servers = '${brokers}', topic = 'schedules', primary_key = 'flight_id', properties.compression.type = 'lz4') FORMAT PLAIN ENCODE JSON;
CREATE SINK departures_topic FROM all_departures
WITH (connector = 'kafka', bootstrap.servers = '${brokers}', topic = 'departures', primary_key = 'flight_id', properties.compression.type = 'lz4') FORMAT PLAIN ENCODE JSON;
CREATE SINK arrivals_topic FROM all_arrivals
WITH (connector = 'kafka', bootstrap.servers = '${brokers}', topic = 'arrivals', primary_key = 'flight_id', properties.compression.type = 'lz4') FORMAT PLAIN ENCODE JSON;
CREATE SINK weather_topic FROM all_weather
WITH (connector = 'kafka', bootstrap.servers = '${brokers}', topic = 'weather', primary_key = 'origin', properties.compression.type = 'lz4') FORMAT PLAIN ENCODE JSON;
