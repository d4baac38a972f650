//! A pool that lives: endpoints, scraping, health probes, waiting requests; the async shell around scheduling.
