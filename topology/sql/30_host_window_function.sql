-- The one function of the hot path that is Java: topology/java/vacancy/HostWindowFunction.java.
CREATE TEMPORARY FUNCTION host_window AS 'vacancy.HostWindowFunction' LANGUAGE JAVA
