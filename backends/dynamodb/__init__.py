"""The adapter of dynamodb."""

from lazysession.backends.dynamodb.store import DynamoDBBackend as DynamoDBBackend
