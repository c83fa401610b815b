-- topology/java/vacancy/HostWindowFunction.java.
CREATE TEMPORARY FUNCTION host_window AS 'vacancy.HostWindowFunction' LANGUAGE JAVA
