-- Two ways to count the same departures: read in one request, their totals are equal.

CREATE MATERIALIZED VIEW departures_by_origin AS
SELECT origin, count(*) AS departures FROM departures GROUP BY origin;

CREATE MATERIALIZED VIEW departures_by_carrier AS
SELECT carrier, count(*) AS departures FROM departures GROUP BY carrier;
