-- Dead letters sorted by their events: a second copy of a bad event is looked up here, and makes no second letter.
ALTER TABLE dead_letters {on_cluster}
    MODIFY SETTING deduplicate_merge_projection_mode = 'rebuild', lightweight_mutation_projection_mode = 'rebuild';

ALTER TABLE dead_letters {on_cluster} ADD PROJECTION IF NOT EXISTS by_event
(
    SELECT companyId, eventId, source, logId, topic, partition, offset ORDER BY companyId, eventId
);

ALTER TABLE dead_letters {on_cluster} MATERIALIZE PROJECTION by_event;
