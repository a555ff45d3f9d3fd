// Classifies the images that are posted to it:
//
//   dotnet run -c Release -- model.safetensors --urls http://127.0.0.1:8080
//   curl --data-binary @photo.jpg http://127.0.0.1:8080/classify
//
// One classifier serves all requests: it may be used from any thread, decodes images side by side, and lets requests wait for its sessions.
using HpcBatchNorm;
using HpcBatchNorm.Data;
using HpcBatchNorm.Training.Serving;

if (args.Length == 0 || args[0].StartsWith('-'))
{
    Console.Error.WriteLine("usage: WebService MODEL.safetensors [--urls http://127.0.0.1:8080]");
    return 1;
}

WebApplicationBuilder builder = WebApplication.CreateBuilder(args[1..]);
try
{
    // The container disposes of it when the service stops, after the requests in flight.
    Classifier opened = Classifier.Open(args[0], builder.Configuration.GetSection("Classifier").Get<ClassifierOptions>());
    builder.Services.AddSingleton(_ => opened);
}
catch (UserErrorException error)
{
    Console.Error.WriteLine(error.Message);
    return 1;
}

WebApplication app = builder.Build();

app.MapGet("/health", (Classifier classifier) => new { status = "ok", classifier.Description, classes = classifier.ClassNames.Count, classifier.Sessions });

app.MapPost("/classify", async (HttpRequest request, Classifier classifier, CancellationToken cancellation) =>
{
    using var body = new MemoryStream();
    await request.Body.CopyToAsync(body, cancellation);
    try
    {
        // A client that goes away cancels its request.
        Classification answer = await classifier.ClassifyAsync(body.GetBuffer().AsMemory(0, (int)body.Length), cancellation);
        return Results.Ok(answer.Top);
    }
    catch (InvalidImageException error)
    {
        return Results.Problem(error.Message, statusCode: StatusCodes.Status400BadRequest);
    }
});

app.Run();
return 0;
