SET clock = 'event';

CREATE FEATURE VIEW city_load ENTITY (city) TIMESTAMP at WINDOWS ('1 hour') AS
SELECT city, count(*) AS rides, avg(fare) AS fare_mean FROM rides GROUP BY city;

CREATE FEATURE VIEW driver_last ENTITY (driver) TIMESTAMP at AS SELECT driver, fare FROM rides;

CREATE FEATURE SERVICE ride_features REQUEST (hour INT) AS (city_load, driver_last, hour);

CREATE MATERIALIZED VIEW by_city AS SELECT city, count(*) AS rides, sum(fare) AS fares FROM rides GROUP BY city;

CREATE MATERIALIZED VIEW by_driver AS SELECT driver, count(*) AS rides FROM rides GROUP BY driver;
