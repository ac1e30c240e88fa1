"""Makes a user of moto's AWS who may read metrics alone, and ten minutes of metrics. Prints the user's keys.

Four calls: as many as moto takes before it begins to check signatures and rights.
"""

import datetime
import json
import sys
from typing import Any

import botocore.session

url, region = sys.argv[1:]
# moto names the action by the service that is signed for, AWS by its own name.
ACTIONS = ["cloudwatch:GetMetricData", "monitoring:GetMetricData"]
READ = {"Effect": "Allow", "Action": ACTIONS, "Resource": "*"}
MINUTES = 9
REQUESTS, ERRORS = 40.0, 2.0
FASTEST, SLOWEST, STEP = 10, 110, 10


def client(service: str) -> Any:
    session = botocore.session.get_session()
    return session.create_client(
        service,
        endpoint_url=url,
        region_name=region,
        aws_access_key_id="anybody",
        aws_secret_access_key="anything",
    )


def metrics() -> list[dict[str, Any]]:
    now = datetime.datetime.now(datetime.UTC)
    dimensions = {"environment": "production", "flag": "checkout-v2", "variation": "on", "cohort": "share"}
    common = {"Dimensions": [{"Name": name, "Value": value} for name, value in dimensions.items()]}
    found = []
    for minute in range(MINUTES):
        at = now - datetime.timedelta(seconds=60 * minute + 30)
        for name, value in (("Requests", REQUESTS), ("Errors", ERRORS)):
            found.append({**common, "MetricName": name, "Timestamp": at, "Value": value})
        milliseconds = range(FASTEST, SLOWEST, STEP)
        found += [{**common, "MetricName": "Latency", "Timestamp": at, "Value": ms / 1000} for ms in milliseconds]
    return found


iam = client("iam")
iam.create_user(UserName="rampart")
key = iam.create_access_key(UserName="rampart")["AccessKey"]
document = json.dumps({"Version": "2012-10-17", "Statement": [READ]})
iam.put_user_policy(UserName="rampart", PolicyName="read", PolicyDocument=document)
client("cloudwatch").put_metric_data(Namespace="Shop", MetricData=metrics())
sys.stdout.write(json.dumps([key["AccessKeyId"], key["SecretAccessKey"]]))
