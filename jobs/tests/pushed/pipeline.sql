SET clock = 'wall';

CREATE SOURCE rides (
  ride_id BIGINT NOT NULL, city VARCHAR NOT NULL, fare DOUBLE, at TIMESTAMP(3), place BIGINT METADATA FROM 'offset',
  WATERMARK FOR at
) WITH (connector = 'push', max_queue_bytes = '262144') FORMAT PLAIN ENCODE JSON;

CREATE SOURCE tips (ride_id BIGINT, tip DOUBLE) WITH (connector = 'push', secret = '${secret:-correct horse}') FORMAT PLAIN ENCODE JSON;

CREATE FEATURE VIEW city_load ENTITY (city) TIMESTAMP at WINDOWS ('1 hour') AS SELECT city, count(*) AS rides FROM rides GROUP BY city;

CREATE FEATURE VIEW city_last ENTITY (city) TIMESTAMP at AS SELECT city, ride_id, place FROM rides;

CREATE FEATURE SERVICE ride_features AS (city_load, city_last);

CREATE MATERIALIZED VIEW by_city AS SELECT city, count(*) AS rides, count(DISTINCT place) AS places FROM rides GROUP BY city;

CREATE MATERIALIZED VIEW tips_sum AS SELECT sum(tip) AS tips FROM tips;
